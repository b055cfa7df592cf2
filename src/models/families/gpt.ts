// GPT-2, GPT-Neo, GPT-J and CodeGen: the lineage of GPT-2's names.

import type { Architecture, ConfigSpec } from '../architecture.js'
import type { Fields } from '../fields.js'
import { fourBlocks, fusedQkv, inTurn, linear, weight } from '../layouts.js'
import { frequencies } from '../rope.js'
import { activation, intermediateSize, maxPosition, mustBe, plain, type ShapeKeys, shape, spelled } from '../spec.js'

const keys = {
  hidden: ['n_embd', 'hidden_size'],
  layers: ['n_layer', 'num_hidden_layers'],
  heads: ['n_head', 'num_attention_heads'],
} satisfies ShapeKeys

function common(config: Fields, shapeKeys: ShapeKeys, innerKey: string, tied: boolean): ConfigSpec {
  const sizes = shape(config, shapeKeys)
  return {
    ...plain,
    ...sizes,
    intermediate_size: intermediateSize(config, innerKey, 4 * sizes.hidden_size),
    max_position: maxPosition(config, 'n_positions'),
    norm_eps: config.real('layer_norm_epsilon', 0, 1, 1e-5),
    activation: activation(config, 'activation_function', 'gelu_new'),
    tie_word_embeddings: config.flag('tie_word_embeddings', tied),
  }
}

const head = { names: ['lm_head.weight'], bare: true } satisfies Architecture['tensors']['unembedding']

/** Learned positions; matrices are stored turned. */
export const gpt2: Architecture = {
  modelType: 'gpt2',
  prefixes: ['transformer.'],
  spec(config) {
    mustBe(config, 'add_cross_attention', false)
    const spec = common(config, keys, 'n_inner', true)
    return {
      ...spec,
      position_embedding: true,
      attention_scale: config.flag('scale_attn_weights', true) ? spec.attention_scale : 1,
      attention_scale_by_layer: config.flag('scale_attn_by_inverse_layer_idx', false),
    }
  },
  tensors: {
    embedding: { names: ['wte.weight'] },
    unembedding: head,
    position_embedding: { names: ['wpe.weight'] },
    ...linear('final_norm', 'ln_f'),
    ...linear('attention_norm', 'h.{layer}.ln_1'),
    ...linear('mlp_norm', 'h.{layer}.ln_2'),
    ...fusedQkv('h.{layer}.attn.c_attn', inTurn, { transposed: true }),
    ...linear('attention_out', 'h.{layer}.attn.c_proj', { transposed: true }),
    ...linear('mlp_up', 'h.{layer}.mlp.c_fc', { transposed: true }),
    ...linear('mlp_down', 'h.{layer}.mlp.c_proj', { transposed: true }),
  },
  ignored: /^h\.\d+\.attn\.(bias|masked_bias)$/,
}

/** GPT-2 with matrices the usual way round, scores that are not scaled, and layers that see only a window. */
export const gptNeo: Architecture = {
  modelType: 'gpt_neo',
  prefixes: ['transformer.'],
  spec(config) {
    const neoKeys: ShapeKeys = {
      hidden: ['hidden_size'],
      layers: ['num_layers', 'num_hidden_layers'],
      heads: ['num_heads', 'num_attention_heads'],
    }
    const spec = common(config, neoKeys, 'intermediate_size', true)
    const window = config.int('window_size', 1, 16777216, 256)
    const layers = attentionLayers(config, spec.num_layers)
    return {
      ...spec,
      position_embedding: true,
      attention_scale: 1,
      layer_windows: Int32Array.from(layers, (kind) => (kind === 'local' ? window : 0)),
    }
  },
  tensors: {
    embedding: { names: ['wte.weight'] },
    unembedding: head,
    position_embedding: { names: ['wpe.weight'] },
    ...linear('final_norm', 'ln_f'),
    ...linear('attention_norm', 'h.{layer}.ln_1'),
    ...linear('mlp_norm', 'h.{layer}.ln_2'),
    ...weight('query', 'h.{layer}.attn.attention.q_proj'),
    ...weight('key', 'h.{layer}.attn.attention.k_proj'),
    ...weight('value', 'h.{layer}.attn.attention.v_proj'),
    ...linear('attention_out', 'h.{layer}.attn.attention.out_proj'),
    ...linear('mlp_up', 'h.{layer}.mlp.c_fc'),
    ...linear('mlp_down', 'h.{layer}.mlp.c_proj'),
  },
  ignored: /^h\.\d+\.attn\.attention\.(bias|masked_bias)$/,
}

/** `attention_types` [[["global", "local"], 12], ...]: each pattern so many times, one after the other. */
function attentionLayers(config: Fields, num_layers: number): string[] {
  const types = config.raw('attention_types') ?? [[['global', 'local'], num_layers / 2]]
  const expected = `runs [["global" or "local", ...], times] of ${num_layers} layers together`
  if (!Array.isArray(types)) throw config.error('attention_types', expected)
  const layers = types.flatMap((run: unknown) => {
    const [pattern, times] = Array.isArray(run) ? run : []
    const known = Array.isArray(pattern) && pattern.every((kind) => kind === 'global' || kind === 'local')
    if (!known || !Number.isSafeInteger(times) || times < 0 || times > num_layers)
      throw config.error('attention_types', expected)
    return Array.from({ length: times }, () => pattern as string[]).flat()
  })
  if (layers.length !== num_layers) throw config.error('attention_types', expected)
  return layers
}

const parallelTensors = {
  embedding: { names: ['wte.weight'] },
  unembedding: head,
  unembedding_bias: { names: ['lm_head.bias'], bare: true },
  ...linear('final_norm', 'ln_f'),
  ...linear('attention_norm', 'h.{layer}.ln_1'),
  ...weight('attention_out', 'h.{layer}.attn.out_proj'),
  ...linear('mlp_up', 'h.{layer}.mlp.fc_in'),
  ...linear('mlp_down', 'h.{layer}.mlp.fc_out'),
} satisfies Architecture['tensors']

function parallel(config: Fields): ConfigSpec {
  if (config.isNull('rotary_dim')) throw config.error('rotary_dim', 'an even number')
  const spec = common(config, keys, 'n_inner', false)
  const dims = config.int('rotary_dim', 2, 1024, 64)
  if (dims % 2 !== 0 || dims > spec.head_dim)
    throw config.error('rotary_dim', `an even number up to ${spec.head_dim}, the dims of a head`)
  return {
    ...spec,
    topology: 'parallel_shared',
    rope_frequencies: frequencies(10000, dims),
    rope_layout: 'interleaved',
  }
}

/** Parallel blocks with one norm, rotation of neighbouring dims, a bias in the unembedding. */
export const gptJ: Architecture = {
  modelType: 'gptj',
  prefixes: ['transformer.'],
  spec: parallel,
  tensors: {
    ...parallelTensors,
    ...weight('query', 'h.{layer}.attn.q_proj'),
    ...weight('key', 'h.{layer}.attn.k_proj'),
    ...weight('value', 'h.{layer}.attn.v_proj'),
  },
  ignored: /^h\.\d+\.attn\.(bias|masked_bias|embed_positions)$/,
}

/** GPT-J with query, key and value in one matrix. */
export const codeGen: Architecture = {
  modelType: 'codegen',
  prefixes: ['transformer.'],
  spec(config) {
    const spec = parallel(config)
    if (spec.num_heads % 4 !== 0) throw config.error(spelled(config, ...keys.heads), 'a multiple of 4')
    return spec
  },
  absent: () => ['query_bias', 'key_bias', 'value_bias'],
  tensors: { ...parallelTensors, ...fusedQkv('h.{layer}.attn.qkv_proj', fourBlocks) },
  ignored: /^h\.\d+\.attn\.(bias|masked_bias|causal_mask)$/,
}
