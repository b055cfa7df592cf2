// Gemma 1, 2 and 3: a scaled, tied embedding, norms that store their weight's distance from 1, a gated MLP with GELU.

import type { Architecture, ConfigSpec } from '../architecture.js'
import type { Fields } from '../fields.js'
import { weight } from '../layouts.js'
import { scaled } from '../rope.js'
import { activation, layerWindows, mustBe, optionalReal, slidingWindow } from '../spec.js'
import { attentionBiases, llamaSpec, llamaTensors, mlpBiases, rotaryBuffers } from './llama.js'

/** Norms store w and multiply by 1 + w. */
const oneMore = { addend: 1 } as const

function gemmaSpec(config: Fields): ConfigSpec {
  if (config.raw('use_bidirectional_attention') !== undefined) mustBe(config, 'use_bidirectional_attention', false)
  const spec = llamaSpec(config, { headDim: 256 })
  return {
    ...spec,
    embedding_scale: spec.hidden_size ** 0.5,
    // Gemma 1's first files say "gelu" and mean its approximation.
    activation: activation(config, 'hidden_activation', 'gelu_pytorch_tanh'),
    tie_word_embeddings: config.flag('tie_word_embeddings', true),
  }
}

function absent(config: Fields) {
  return [...(config.flag('attention_bias', false) ? [] : attentionBiases), ...mlpBiases]
}

export const gemma: Architecture = {
  modelType: 'gemma',
  prefixes: ['model.'],
  spec(config) {
    const spec = gemmaSpec(config)
    if (config.has('hidden_activation') || !config.has('hidden_act') || config.raw('hidden_act') === 'gelu') return spec
    return { ...spec, activation: activation(config, 'hidden_act', 'gelu_pytorch_tanh') }
  },
  absent,
  tensors: {
    ...llamaTensors,
    ...weight('final_norm', 'norm', oneMore),
    ...weight('attention_norm', 'layers.{layer}.input_layernorm', oneMore),
    ...weight('mlp_norm', 'layers.{layer}.post_attention_layernorm', oneMore),
  },
  ignored: rotaryBuffers,
}

/** What Gemma 2 and 3 share: norms around the branches, capped scores and logits, a scale of scores of its own, layers with windows. */
function capped(
  config: Fields,
  caps: { attention: number; logits: number },
  slides: (layer: number) => boolean,
): ConfigSpec {
  const spec = gemmaSpec(config)
  return {
    ...spec,
    norm_placement: 'around',
    attention_scale: config.real('query_pre_attn_scalar', 1e-6, 1e9, 256) ** -0.5,
    attention_softcap: optionalReal(config, 'attn_logit_softcapping', 1e-3, 1e6, caps.attention),
    logit_softcap: optionalReal(config, 'final_logit_softcapping', 1e-3, 1e6, caps.logits),
    layer_windows: layerWindows(config, spec.num_layers, slidingWindow(config, 4096), slides),
  }
}

const aroundTensors = {
  ...gemma.tensors,
  ...weight('attention_output_norm', 'layers.{layer}.post_attention_layernorm', oneMore),
  ...weight('mlp_norm', 'layers.{layer}.pre_feedforward_layernorm', oneMore),
  ...weight('mlp_output_norm', 'layers.{layer}.post_feedforward_layernorm', oneMore),
} satisfies Architecture['tensors']

export const gemma2: Architecture = {
  modelType: 'gemma2',
  prefixes: ['model.'],
  spec: (config) => capped(config, { attention: 50, logits: 30 }, (layer) => layer % 2 === 0),
  absent,
  tensors: aroundTensors,
  ignored: rotaryBuffers,
}

/** Gemma 2 without caps, with a norm of every query and key head, and frequencies of their own in the layers with a window. */
export const gemma3: Architecture = {
  modelType: 'gemma3_text',
  prefixes: ['model.'],
  spec: gemma3Spec,
  absent,
  tensors: {
    ...aroundTensors,
    ...weight('query_norm', 'layers.{layer}.self_attn.q_norm', oneMore),
    ...weight('key_norm', 'layers.{layer}.self_attn.k_norm', oneMore),
  },
  ignored: rotaryBuffers,
}

function gemma3Spec(config: Fields): ConfigSpec {
  const pattern = config.int('sliding_window_pattern', 1, 1024, 6)
  const spec = capped(plainRope(config), { attention: 0, logits: 0 }, (layer) => (layer + 1) % pattern !== 0)
  const parameters = config.object('rope_parameters')
  const full = parameters?.object('full_attention')
  const sliding = parameters?.object('sliding_attention')
  const theta = full?.has('rope_theta') ? full.real('rope_theta', 1, 1e12) : config.real('rope_theta', 1, 1e12, 1e6)
  const localTheta = sliding?.has('rope_theta')
    ? sliding.real('rope_theta', 1, 1e12)
    : config.real('rope_local_base_freq', 1, 1e12, 1e4)
  const local = scaled(config, sliding, localTheta, spec.head_dim)
  if (local.rope_scale !== 1 || local.long_rope_above !== 0)
    throw (sliding as Fields).error(
      'rope_type',
      '"default" or "linear" (others are not built for layers with a window)',
    )
  return {
    ...spec,
    ...scaled(config, full ?? config.object('rope_scaling'), theta, spec.head_dim),
    local_rope_frequencies: local.rope_frequencies,
    qk_norm: 'head',
  }
}

/** The config without its two sets of rotary fields, which llamaSpec would take for one. */
function plainRope(config: Fields): Fields {
  return config.without('rope_parameters', 'rope_scaling', 'rope_theta')
}

/** Gemma 3 with eyes, of which the text side is served: its fields lie in text_config, which leaves out what the class has by default. */
const textDefaults = {
  vocab_size: 262208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  max_position_embeddings: 131072,
}

function textConfig(config: Fields): Fields {
  const text = config.object('text_config')
  if (text === undefined) throw config.error('text_config', 'an object')
  return text.withDefaults(textDefaults)
}

export const gemma3WithVision: Architecture = {
  modelType: 'gemma3',
  prefixes: ['language_model.model.', 'model.language_model.'],
  spec: (config) => gemma3Spec(textConfig(config)),
  absent: (config) => absent(textConfig(config)),
  tensors: {
    ...gemma3.tensors,
    unembedding: { names: ['lm_head.weight', 'language_model.lm_head.weight'], bare: true },
  },
  ignored: /^(model\.)?(vision_tower|multi_modal_projector)\./,
}
