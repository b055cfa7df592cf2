// Llama's relatives with other norms: OLMo 2 and StableLM.

import type { TensorRole } from '../../engine/contract.js'
import type { Architecture } from '../architecture.js'
import { linear, weight } from '../layouts.js'
import { attentionBiases, llamaSpec, llamaTensors, mlpBiases, qkvBiases, rotaryBuffers } from './llama.js'

const { attention_norm_weight: _, mlp_norm_weight: __, ...withoutNorms } = llamaTensors

/** Norms behind the branches instead of before them, and over the whole row of queries and of keys. */
export const olmo2: Architecture = {
  modelType: 'olmo2',
  prefixes: ['model.'],
  spec: (config) => ({ ...llamaSpec(config, { eps: 1e-5 }), norm_placement: 'after', qk_norm: 'whole' }),
  absent: (config) => [...(config.flag('attention_bias', false) ? [] : attentionBiases), ...mlpBiases],
  tensors: {
    ...withoutNorms,
    ...weight('attention_output_norm', 'layers.{layer}.post_attention_layernorm'),
    ...weight('mlp_output_norm', 'layers.{layer}.post_feedforward_layernorm'),
    ...weight('query_norm', 'layers.{layer}.self_attn.q_norm'),
    ...weight('key_norm', 'layers.{layer}.self_attn.k_norm'),
  },
  ignored: rotaryBuffers,
}

const qkNorms: TensorRole[] = ['query_norm_weight', 'key_norm_weight']

/** LayerNorms, rotation of a part of each head, a norm for each query and key head by itself. */
export const stableLm: Architecture = {
  modelType: 'stablelm',
  prefixes: ['model.'],
  spec: (config) => ({
    ...llamaSpec(config, { rope: { factor: 'rope_pct', defaultFactor: 0.25 } }),
    norm: 'layer',
    norm_eps: config.real('layer_norm_eps', 0, 1, 1e-5),
    qk_norm: config.flag('qk_layernorm', false) ? 'each_head' : 'none',
    topology: config.flag('use_parallel_residual', false) ? 'parallel_shared' : 'sequential',
  }),
  absent: (config) => [
    'attention_out_bias',
    ...mlpBiases,
    ...(config.flag('use_qkv_bias', false) ? [] : qkvBiases),
    ...(config.flag('qk_layernorm', false) ? [] : qkNorms),
    ...(config.flag('use_parallel_residual', false) ? (['mlp_norm_weight', 'mlp_norm_bias'] as const) : []),
  ],
  tensors: {
    ...llamaTensors,
    ...linear('final_norm', 'norm'),
    ...linear('attention_norm', 'layers.{layer}.input_layernorm'),
    ...linear('mlp_norm', 'layers.{layer}.post_attention_layernorm'),
    ...weight('query_norm', 'layers.{layer}.self_attn.q_layernorm.norms.{part}'),
    ...weight('key_norm', 'layers.{layer}.self_attn.k_layernorm.norms.{part}'),
  },
  ignored: rotaryBuffers,
}
