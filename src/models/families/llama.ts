// Llama and its kin: RMSNorm before each branch, a gated MLP, rotation of whole heads, key/value heads shared by query heads.

import type { TensorRole } from '../../engine/contract.js'
import type { Architecture, ConfigSpec } from '../architecture.js'
import type { Fields } from '../fields.js'
import { linear, weight } from '../layouts.js'
import { type RopeKeys, rope } from '../rope.js'
import {
  activation,
  intermediateSize,
  layerWindows,
  maxPosition,
  plain,
  sameWindow,
  shape,
  slidingWindow,
  usualKeys,
} from '../spec.js'

/** `defaults`: what the class takes for keys that a config leaves out. */
export function llamaSpec(
  config: Fields,
  defaults: { kvHeads?: number; headDim?: number; rope?: RopeKeys; eps?: number } = {},
): ConfigSpec {
  const sizes = shape(config, usualKeys, defaults)
  return {
    ...plain,
    ...sizes,
    intermediate_size: intermediateSize(config),
    max_position: maxPosition(config),
    ...rope(config, sizes.head_dim, defaults.rope),
    norm: 'rms',
    norm_eps: config.real('rms_norm_eps', 0, 1, defaults.eps ?? 1e-6),
    activation: activation(config, 'hidden_act', 'silu'),
    gated_mlp: true,
    tie_word_embeddings: config.flag('tie_word_embeddings', false),
  }
}

export const llamaTensors = {
  embedding: { names: ['embed_tokens.weight'] },
  unembedding: { names: ['lm_head.weight'], bare: true },
  ...weight('final_norm', 'norm'),
  ...weight('attention_norm', 'layers.{layer}.input_layernorm'),
  ...weight('mlp_norm', 'layers.{layer}.post_attention_layernorm'),
  ...linear('query', 'layers.{layer}.self_attn.q_proj'),
  ...linear('key', 'layers.{layer}.self_attn.k_proj'),
  ...linear('value', 'layers.{layer}.self_attn.v_proj'),
  ...linear('attention_out', 'layers.{layer}.self_attn.o_proj'),
  ...linear('mlp_gate', 'layers.{layer}.mlp.gate_proj'),
  ...linear('mlp_up', 'layers.{layer}.mlp.up_proj'),
  ...linear('mlp_down', 'layers.{layer}.mlp.down_proj'),
} satisfies Architecture['tensors']

export const qkvBiases: TensorRole[] = ['query_bias', 'key_bias', 'value_bias']
export const attentionBiases: TensorRole[] = [...qkvBiases, 'attention_out_bias']
export const mlpBiases: TensorRole[] = ['mlp_gate_bias', 'mlp_up_bias', 'mlp_down_bias']

/** What old files store of the rotation. */
export const rotaryBuffers = /^layers\.\d+\.self_attn\.rotary_emb\.inv_freq$/

export const llama: Architecture = {
  modelType: 'llama',
  prefixes: ['model.'],
  spec: (config) => llamaSpec(config),
  absent: (config) => [
    ...(config.flag('attention_bias', false) ? [] : attentionBiases),
    ...(config.flag('mlp_bias', false) ? [] : mlpBiases),
  ],
  tensors: llamaTensors,
  ignored: rotaryBuffers,
}

/** Llama whose layers see only a window of the last keys; 4096 where a config does not say. */
export const mistral: Architecture = {
  modelType: 'mistral',
  prefixes: ['model.'],
  spec(config) {
    const spec = llamaSpec(config, { kvHeads: 8 })
    return { ...spec, layer_windows: sameWindow(spec.num_layers, slidingWindow(config, 4096)) }
  },
  absent: () => [...attentionBiases, ...mlpBiases],
  tensors: llamaTensors,
  ignored: rotaryBuffers,
}

/** The layers from max_window_layers on, or those that layer_types names, see only a window. */
export function qwenWindows(config: Fields, num_layers: number): Int32Array {
  const window = config.flag('use_sliding_window', false) ? slidingWindow(config, 4096) : null
  const first = config.int('max_window_layers', 0, 1024, 28)
  return layerWindows(config, num_layers, window, (layer) => layer >= first)
}

/** Llama with biases of query, key and value. */
export const qwen2: Architecture = {
  modelType: 'qwen2',
  prefixes: ['model.'],
  spec(config) {
    const spec = llamaSpec(config)
    return { ...spec, layer_windows: qwenWindows(config, spec.num_layers) }
  },
  absent: () => ['attention_out_bias', ...mlpBiases],
  tensors: llamaTensors,
  ignored: rotaryBuffers,
}

/** Llama with a norm of every query and key head. */
export const qwen3: Architecture = {
  modelType: 'qwen3',
  prefixes: ['model.'],
  spec(config) {
    const spec = llamaSpec(config, { headDim: 128 })
    return { ...spec, qk_norm: 'head', layer_windows: qwenWindows(config, spec.num_layers) }
  },
  absent: (config) => [...(config.flag('attention_bias', false) ? [] : attentionBiases), ...mlpBiases],
  tensors: {
    ...llamaTensors,
    ...weight('query_norm', 'layers.{layer}.self_attn.q_norm'),
    ...weight('key_norm', 'layers.{layer}.self_attn.k_norm'),
  },
  ignored: rotaryBuffers,
}
