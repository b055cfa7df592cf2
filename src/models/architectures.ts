// THE table of architectures: one row per Hugging Face class. A row says how config.json becomes a ModelSpec and under which names,
// and in which order of rows, a checkpoint stores the decoder's tensors.

import type { Activation, ModelSpec, TensorRole } from '../engine/contract.js'
import type { Fields } from './fields.js'
import { list, ModelError } from './model-error.js'

/** The stored rows of one canonical tensor, when it shares a stored tensor with others. */
export interface RowGroups {
  stored_rows: number
  first_row: number
  group_rows: number
  group_stride: number
  num_groups: number
}

/** Where a checkpoint keeps one canonical tensor. */
export interface StoredName {
  /** `{layer}` stands for the decoder block. Names are tried in turn. */
  names: [string, ...string[]]
  /** True for names that never carry the architecture's prefix. */
  bare?: true
  /** Left out: the stored tensor is the canonical one. */
  rows?: (spec: ModelSpec) => RowGroups
}

export interface Architecture {
  /** `model_type` in config.json, used when `architectures` is absent. */
  modelType: string
  /** Before the names of the base model's tensors; checkpoints saved from the base model lack it. */
  prefix: string
  spec(config: Fields): Omit<ModelSpec, 'num_sampled_ids'>
  /** Roles that this config has no tensors for. */
  absent(config: Fields): TensorRole[]
  tensors: Partial<Record<TensorRole, StoredName>> & Record<'embedding' | 'unembedding', StoredName>
  /** Buffers that old checkpoints store and that are computed instead. */
  ignored: RegExp
}

export const architectures: Record<string, Architecture> = {
  GPTNeoXForCausalLM: {
    modelType: 'gpt_neox',
    prefix: 'gpt_neox.',
    spec: gptNeoxSpec,
    absent: (config) =>
      config.flag('attention_bias', true) ? [] : ['query_bias', 'key_bias', 'value_bias', 'attention_out_bias'],
    tensors: {
      embedding: { names: ['embed_in.weight'] },
      unembedding: { names: ['embed_out.weight', 'lm_head.weight'], bare: true },
      final_norm_weight: { names: ['final_layer_norm.weight'] },
      final_norm_bias: { names: ['final_layer_norm.bias'] },
      input_norm_weight: { names: ['layers.{layer}.input_layernorm.weight'] },
      input_norm_bias: { names: ['layers.{layer}.input_layernorm.bias'] },
      post_attention_norm_weight: { names: ['layers.{layer}.post_attention_layernorm.weight'] },
      post_attention_norm_bias: { names: ['layers.{layer}.post_attention_layernorm.bias'] },
      query_weight: { names: ['layers.{layer}.attention.query_key_value.weight'], rows: perHead(0) },
      query_bias: { names: ['layers.{layer}.attention.query_key_value.bias'], rows: perHead(0) },
      key_weight: { names: ['layers.{layer}.attention.query_key_value.weight'], rows: perHead(1) },
      key_bias: { names: ['layers.{layer}.attention.query_key_value.bias'], rows: perHead(1) },
      value_weight: { names: ['layers.{layer}.attention.query_key_value.weight'], rows: perHead(2) },
      value_bias: { names: ['layers.{layer}.attention.query_key_value.bias'], rows: perHead(2) },
      attention_out_weight: { names: ['layers.{layer}.attention.dense.weight'] },
      attention_out_bias: { names: ['layers.{layer}.attention.dense.bias'] },
      mlp_up_weight: { names: ['layers.{layer}.mlp.dense_h_to_4h.weight'] },
      mlp_up_bias: { names: ['layers.{layer}.mlp.dense_h_to_4h.bias'] },
      mlp_down_weight: { names: ['layers.{layer}.mlp.dense_4h_to_h.weight'] },
      mlp_down_bias: { names: ['layers.{layer}.mlp.dense_4h_to_h.bias'] },
    },
    ignored: /^layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/,
  },
}

/** The row for a config.json. */
export function architectureOf(config: Fields): { name: string; row: Architecture } {
  const supported = Object.keys(architectures)
  const named = config.raw('architectures')
  if (named !== undefined) {
    if (!Array.isArray(named) || named.length === 0 || !named.every((name) => typeof name === 'string')) {
      throw config.error('architectures', 'a list of class names')
    }
    const name = named.find((candidate) => Object.hasOwn(architectures, candidate))
    const row = name === undefined ? undefined : architectures[name]
    if (name !== undefined && row !== undefined) return { name, row }
    throw config.error('architectures', `a supported one (${supported.join(', ')})`)
  }
  const modelType = config.text('model_type')
  const found = Object.entries(architectures).find(([, row]) => row.modelType === modelType)
  if (found !== undefined) return { name: found[0], row: found[1] }
  if (modelType === undefined)
    throw config.error('architectures', `a list with a supported class (${supported.join(', ')})`)
  throw config.error(
    'model_type',
    `one of ${list(
      Object.values(architectures).map((row) => row.modelType),
      40,
    )}`,
  )
}

/** Shape of a canonical tensor: a matrix's rows and columns, or a vector's rows alone. */
export function canonicalShape(role: TensorRole, spec: ModelSpec): [rows: number, cols?: number] {
  const query = spec.num_heads * spec.head_dim
  const kv = spec.num_kv_heads * spec.head_dim
  switch (role) {
    case 'embedding':
    case 'unembedding':
      return [spec.vocab_size, spec.hidden_size]
    case 'query_weight':
      return [query, spec.hidden_size]
    case 'key_weight':
    case 'value_weight':
      return [kv, spec.hidden_size]
    case 'attention_out_weight':
      return [spec.hidden_size, query]
    case 'mlp_up_weight':
      return [spec.intermediate_size, spec.hidden_size]
    case 'mlp_down_weight':
      return [spec.hidden_size, spec.intermediate_size]
    case 'query_bias':
      return [query]
    case 'key_bias':
    case 'value_bias':
      return [kv]
    case 'mlp_up_bias':
      return [spec.intermediate_size]
    default:
      return [spec.hidden_size]
  }
}

function gptNeoxSpec(config: Fields): Omit<ModelSpec, 'num_sampled_ids'> {
  const hidden_size = config.int('hidden_size', 1, 131072)
  const num_heads = config.int('num_attention_heads', 1, 1024)
  const head_dim = hidden_size / num_heads
  if (!Number.isInteger(head_dim)) throw config.error('hidden_size', `a multiple of num_attention_heads (${num_heads})`)
  if (head_dim > 1024) throw config.error('hidden_size', `at most 1024 for each of the ${num_heads} heads`)
  return {
    vocab_size: config.int('vocab_size', 1, 4194304),
    hidden_size,
    num_layers: config.int('num_hidden_layers', 1, 1024),
    num_heads,
    num_kv_heads: num_heads,
    head_dim,
    intermediate_size: config.int('intermediate_size', 1, 1048576),
    max_position: config.int('max_position_embeddings', 1, 16777216),
    ...rotary(config, head_dim, { theta: 'rotary_emb_base', factor: 'rotary_pct', defaultFactor: 0.25 }),
    norm_eps: config.real('layer_norm_eps', 0, 1, 1e-5),
    attention_scale: head_dim ** -0.5,
    activation: activation(config, 'hidden_act', 'gelu'),
    topology: config.flag('use_parallel_residual', true) ? 'parallel' : 'sequential',
    tie_word_embeddings: config.flag('tie_word_embeddings', false),
  }
}

/** Query, key and value of each head lie together: [q_0, k_0, v_0, q_1, k_1, v_1, ...]. `part`: 0 query, 1 key, 2 value. */
function perHead(part: number): (spec: ModelSpec) => RowGroups {
  return ({ num_heads, head_dim }) => ({
    stored_rows: 3 * num_heads * head_dim,
    first_row: part * head_dim,
    group_rows: head_dim,
    group_stride: 3 * head_dim,
    num_groups: num_heads,
  })
}

/**
 * Rotary fields in every spelling: `rope_parameters` of transformers 5, else `rope_scaling` beside keys of the top level, where the
 * architecture's own names go before the general ones.
 */
function rotary(
  config: Fields,
  head_dim: number,
  own: { theta: string; factor: string; defaultFactor: number },
): Pick<ModelSpec, 'rope_dims' | 'rope_theta'> {
  const parameters = config.object('rope_parameters')
  for (const scaling of [parameters, config.object('rope_scaling')]) {
    const key = scaling?.has('rope_type') ? 'rope_type' : 'type'
    const type = scaling?.text(key)
    if (type !== undefined && type !== 'default')
      throw scaling?.error(key, '"default" (other rotary scalings are not built yet)')
  }
  const [thetaFields, thetaKey] = spelled(config, parameters, 'rope_theta', own.theta)
  const [factorFields, factorKey] = spelled(config, parameters, 'partial_rotary_factor', own.factor)
  const factor = factorFields.real(factorKey, 0, 1, own.defaultFactor)
  const rope_dims = Math.trunc(head_dim * factor)
  if (rope_dims % 2 !== 0) {
    throw factorFields.error(
      factorKey,
      `a fraction that rotates an even number of the ${head_dim} dims of a head, not ${rope_dims}`,
    )
  }
  return { rope_dims, rope_theta: thetaFields.real(thetaKey, 1, 1e12, 10000) }
}

/** Which of the three spellings a config uses. */
function spelled(config: Fields, parameters: Fields | undefined, key: string, own: string): [Fields, string] {
  if (parameters?.has(key)) return [parameters, key]
  return config.has(own) || !config.has(key) ? [config, own] : [config, key]
}

// gelu_new, gelu_fast and gelu_pytorch_tanh are one function, written in three ways.
const ACTIVATIONS: Record<string, Activation> = {
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
}

function activation(config: Fields, key: string, fallback: string): Activation {
  const name = config.text(key) ?? fallback
  const found = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined
  if (found !== undefined) return found
  throw config.error(key, `one of ${Object.keys(ACTIVATIONS).join(', ')}`)
}

/** Features that change the numbers in every architecture and are not built yet. */
export function refuseUnbuilt(config: Fields): void {
  if (config.has('quantization_config')) {
    throw new ModelError(
      `${config.file}: quantization_config: expected none (quantized checkpoints are not built yet), found one`,
    )
  }
}
