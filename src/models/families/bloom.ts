// BLOOM and Falcon, whose blocks share their names.

import type { TensorRole } from '../../engine/contract.js'
import { alibiSlopes } from '../alibi.js'
import type { Architecture, RowGroups } from '../architecture.js'
import type { Fields } from '../fields.js'
import { fusedQkv, inTurn, linear, perGroup, perHead } from '../layouts.js'
import { rope } from '../rope.js'
import { activation, intermediateSize, maxPosition, mustBe, plain, type ShapeKeys, shape } from '../spec.js'

const keys = {
  hidden: ['n_embed', 'hidden_size'],
  layers: ['n_layer', 'num_hidden_layers'],
  heads: ['n_head', 'num_attention_heads'],
} satisfies ShapeKeys

const blocks = {
  embedding: { names: ['word_embeddings.weight'] },
  unembedding: { names: ['lm_head.weight'], bare: true },
  ...linear('final_norm', 'ln_f'),
  ...linear('attention_out', 'h.{layer}.self_attention.dense'),
  ...linear('mlp_up', 'h.{layer}.mlp.dense_h_to_4h'),
  ...linear('mlp_down', 'h.{layer}.mlp.dense_4h_to_h'),
} satisfies Architecture['tensors']

/** Positions by ALiBi, a norm of the embedding. A config names no context: 2048 is what all were trained with. */
export const bloom: Architecture = {
  modelType: 'bloom',
  prefixes: ['transformer.'],
  spec(config) {
    mustBe(config, 'apply_residual_connection_post_layernorm', false)
    const sizes = shape(config, keys)
    return {
      ...plain,
      ...sizes,
      intermediate_size: 4 * sizes.hidden_size,
      max_position: config.int('seq_length', 1, 16777216, 2048),
      embedding_norm: true,
      alibi_slopes: alibiSlopes(sizes.num_heads),
      norm_eps: config.real('layer_norm_epsilon', 0, 1, 1e-5),
      activation: 'gelu_tanh',
      tie_word_embeddings: config.flag('tie_word_embeddings', true),
    }
  },
  tensors: {
    ...blocks,
    ...linear('embedding_norm', 'word_embeddings_layernorm'),
    ...linear('attention_norm', 'h.{layer}.input_layernorm'),
    ...linear('mlp_norm', 'h.{layer}.post_attention_layernorm'),
    ...fusedQkv('h.{layer}.self_attention.query_key_value', perHead),
  },
  ignored: /^$/,
}

/** Falcon's three kinds: `grouped` (40B, 11B), all query heads on one key/value head (7B), and one each (RW). */
function falconKind(config: Fields): { grouped: boolean; multiQuery: boolean; norms: 1 | 2; parallel: boolean } {
  const grouped = config.flag('new_decoder_architecture', false)
  const parallel = config.flag('parallel_attn', true)
  if (grouped && !parallel) throw config.error('parallel_attn', 'true with new_decoder_architecture')
  const norms = grouped && config.int('num_ln_in_parallel_attn', 1, 2, 2) === 2 ? 2 : 1
  return { grouped, multiQuery: !grouped && config.flag('multi_query', true), norms, parallel }
}

const biases: TensorRole[] = [
  'query_bias',
  'key_bias',
  'value_bias',
  'attention_out_bias',
  'mlp_up_bias',
  'mlp_down_bias',
]

/** The layouts coincide where they can be mistaken for one another: a group of one head is per head, one group is in turn. */
function falconRows(part: number): (spec: Parameters<ReturnType<typeof perGroup>>[0]) => RowGroups {
  return (spec) => (spec.num_kv_heads === 1 ? inTurn : perGroup)(part)(spec)
}

export const falcon: Architecture = {
  modelType: 'falcon',
  prefixes: ['transformer.'],
  spec(config) {
    const { grouped, multiQuery, norms, parallel } = falconKind(config)
    const sizes = shape(config, grouped ? { ...keys, kvHeads: ['n_head_kv', 'num_kv_heads'] } : keys)
    const alibi = config.flag('alibi', false)
    return {
      ...plain,
      ...sizes,
      num_kv_heads: multiQuery ? 1 : sizes.num_kv_heads,
      intermediate_size: intermediateSize(config, 'ffn_hidden_size', 4 * sizes.hidden_size),
      max_position: config.has('max_position_embeddings') ? maxPosition(config) : 2048,
      ...(alibi ? {} : rope(config, sizes.head_dim)),
      alibi_slopes: alibi ? alibiSlopes(sizes.num_heads) : plain.alibi_slopes,
      alibi_in_bfloat16: alibi,
      norm_eps: config.real('layer_norm_epsilon', 0, 1, 1e-5),
      activation: activation(config, 'activation', 'gelu'),
      topology: !parallel ? 'sequential' : norms === 2 ? 'parallel' : 'parallel_shared',
      tie_word_embeddings: config.flag('tie_word_embeddings', true),
    }
  },
  absent(config) {
    const { parallel, norms } = falconKind(config)
    const roles = config.flag('bias', false) ? [] : [...biases]
    if (parallel && norms === 1) roles.push('mlp_norm_weight', 'mlp_norm_bias')
    return roles
  },
  tensors: {
    ...blocks,
    attention_norm_weight: { names: ['h.{layer}.input_layernorm.weight', 'h.{layer}.ln_attn.weight'] },
    attention_norm_bias: { names: ['h.{layer}.input_layernorm.bias', 'h.{layer}.ln_attn.bias'] },
    mlp_norm_weight: { names: ['h.{layer}.post_attention_layernorm.weight', 'h.{layer}.ln_mlp.weight'] },
    mlp_norm_bias: { names: ['h.{layer}.post_attention_layernorm.bias', 'h.{layer}.ln_mlp.bias'] },
    ...fusedQkv('h.{layer}.self_attention.query_key_value', falconRows),
  },
  ignored: /^h\.\d+\.self_attention\.rotary_emb\.inv_freq$/,
}
