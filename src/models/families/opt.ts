// OPT and Galactica: learned positions, norms before or after the branches, an embedding of a width of its own.

import type { TensorRole } from '../../engine/contract.js'
import type { Architecture } from '../architecture.js'
import { linear, run } from '../layouts.js'
import { activation, intermediateSize, maxPosition, plain, shape } from '../spec.js'

/** Rows in front of the table of positions that no position uses. */
const OFFSET = 2

const norms: TensorRole[] = ['attention_norm_weight', 'attention_norm_bias', 'mlp_norm_weight', 'mlp_norm_bias']
const biases: TensorRole[] = [
  'query_bias',
  'key_bias',
  'value_bias',
  'attention_out_bias',
  'mlp_up_bias',
  'mlp_down_bias',
]

export const opt: Architecture = {
  modelType: 'opt',
  prefixes: ['model.decoder.', 'decoder.'],
  spec(config) {
    const sizes = shape(config, {
      hidden: ['hidden_size'],
      layers: ['num_hidden_layers'],
      heads: ['num_attention_heads'],
    })
    const width = config.int('word_embed_proj_dim', 1, 131072, sizes.hidden_size)
    const before = config.flag('do_layer_norm_before', true)
    return {
      ...plain,
      ...sizes,
      intermediate_size: intermediateSize(config, 'ffn_dim'),
      max_position: maxPosition(config),
      embedding_size: width === sizes.hidden_size ? 0 : width,
      position_embedding: true,
      norm_eps: 1e-5,
      norm_placement: before ? 'before' : 'residual',
      final_norm: before && !config.flag('_remove_final_layer_norm', false),
      activation: activation(config, 'activation_function', 'relu'),
      tie_word_embeddings: config.flag('tie_word_embeddings', true),
    }
  },
  absent(config) {
    const roles: TensorRole[] = config.flag('enable_bias', true) ? [] : [...biases]
    const affine = config.flag('layer_norm_elementwise_affine', true)
    if (!affine) roles.push(...norms)
    const finalNorm = config.flag('do_layer_norm_before', true) && !config.flag('_remove_final_layer_norm', false)
    if (!affine || !finalNorm) roles.push('final_norm_weight', 'final_norm_bias')
    if (!config.has('word_embed_proj_dim') || config.raw('word_embed_proj_dim') === config.raw('hidden_size'))
      roles.push('embedding_projection', 'output_projection')
    return roles
  },
  tensors: {
    embedding: { names: ['embed_tokens.weight'] },
    unembedding: { names: ['lm_head.weight'], bare: true },
    position_embedding: {
      names: ['embed_positions.weight'],
      rows: ({ max_position }) => run(max_position + OFFSET, OFFSET, max_position),
    },
    embedding_projection: { names: ['project_in.weight'] },
    output_projection: { names: ['project_out.weight'] },
    ...linear('final_norm', 'final_layer_norm'),
    ...linear('attention_norm', 'layers.{layer}.self_attn_layer_norm'),
    ...linear('mlp_norm', 'layers.{layer}.final_layer_norm'), // the block's, in spite of its name
    ...linear('query', 'layers.{layer}.self_attn.q_proj'),
    ...linear('key', 'layers.{layer}.self_attn.k_proj'),
    ...linear('value', 'layers.{layer}.self_attn.v_proj'),
    ...linear('attention_out', 'layers.{layer}.self_attn.out_proj'),
    ...linear('mlp_up', 'layers.{layer}.fc1'),
    ...linear('mlp_down', 'layers.{layer}.fc2'),
  },
  ignored: /^version$/,
}
