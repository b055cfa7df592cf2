// Phi: version 1 to 2 like GPT-J with rotated halves, version 3 like Llama with fused matrices.

import type { Architecture } from '../architecture.js'
import { fusedQkv, gateUp, inTurn, linear, weight } from '../layouts.js'
import { rope } from '../rope.js'
import { activation, intermediateSize, maxPosition, plain, shape, slidingWindow, usualKeys } from '../spec.js'
import { attentionBiases, llamaSpec, llamaTensors, mlpBiases, rotaryBuffers } from './llama.js'

export const phi: Architecture = {
  modelType: 'phi',
  prefixes: ['model.'],
  spec(config) {
    const sizes = shape(config, usualKeys)
    return {
      ...plain,
      ...sizes,
      intermediate_size: intermediateSize(config),
      max_position: maxPosition(config),
      ...rope(config, sizes.head_dim, { defaultFactor: 0.5 }),
      qk_norm: config.flag('qk_layernorm', false) ? 'head' : 'none',
      norm_eps: config.real('layer_norm_eps', 0, 1, 1e-5),
      activation: activation(config, 'hidden_act', 'gelu_new'),
      topology: 'parallel_shared',
      tie_word_embeddings: config.flag('tie_word_embeddings', false),
    }
  },
  absent: (config) =>
    config.flag('qk_layernorm', false)
      ? []
      : ['query_norm_weight', 'query_norm_bias', 'key_norm_weight', 'key_norm_bias'],
  tensors: {
    embedding: { names: ['embed_tokens.weight'] },
    unembedding: { names: ['lm_head.weight'], bare: true },
    unembedding_bias: { names: ['lm_head.bias'], bare: true },
    ...linear('final_norm', 'final_layernorm'),
    ...linear('attention_norm', 'layers.{layer}.input_layernorm'),
    ...linear('query', 'layers.{layer}.self_attn.q_proj'),
    ...linear('key', 'layers.{layer}.self_attn.k_proj'),
    ...linear('value', 'layers.{layer}.self_attn.v_proj'),
    ...linear('query_norm', 'layers.{layer}.self_attn.q_layernorm'),
    ...linear('key_norm', 'layers.{layer}.self_attn.k_layernorm'),
    ...linear('attention_out', 'layers.{layer}.self_attn.dense'),
    ...linear('mlp_up', 'layers.{layer}.mlp.fc1'),
    ...linear('mlp_down', 'layers.{layer}.mlp.fc2'),
  },
  ignored: rotaryBuffers,
}

export const phi3: Architecture = {
  modelType: 'phi3',
  prefixes: ['model.'],
  spec(config) {
    const spec = llamaSpec(config, { eps: 1e-5, rope: { defaultFactor: 1, yarnIsLongrope: true } })
    const window = slidingWindow(config, null)
    return window === null ? spec : { ...spec, layer_windows: new Int32Array(spec.num_layers).fill(window) }
  },
  absent: () => [...attentionBiases, ...mlpBiases],
  tensors: {
    ...llamaTensors,
    ...fusedQkv('layers.{layer}.self_attn.qkv_proj', inTurn),
    ...weight('mlp_gate', 'layers.{layer}.mlp.gate_up_proj', { rows: gateUp(0) }),
    ...weight('mlp_up', 'layers.{layer}.mlp.gate_up_proj', { rows: gateUp(1) }),
  },
  ignored: rotaryBuffers,
}
