// Mixtures of experts: Llama's blocks with many gated MLPs, of which a router chooses some for each token.

import type { ModelSpec } from '../../engine/contract.js'
import type { Architecture } from '../architecture.js'
import type { Fields } from '../fields.js'
import { weight } from '../layouts.js'
import { intermediateSize, sameWindow, slidingWindow, spelled } from '../spec.js'
import { attentionBiases, llamaSpec, llamaTensors, mlpBiases, qwen3, rotaryBuffers } from './llama.js'

/** How many experts there are, at least `min`, and how many a token is given to. Transformers 5 writes both names of the first. */
function experts(
  config: Fields,
  min: number,
  defaults: { experts: number; perToken: number },
): Pick<ModelSpec, 'num_experts' | 'num_experts_per_tok'> {
  const num_experts = config.int(spelled(config, 'num_local_experts', 'num_experts'), min, 1024, defaults.experts)
  if (num_experts === 0) return { num_experts, num_experts_per_tok: 0 }
  return { num_experts, num_experts_per_tok: config.int('num_experts_per_tok', 1, num_experts, defaults.perToken) }
}

const { mlp_gate_weight, mlp_gate_bias, mlp_up_weight, mlp_up_bias, mlp_down_weight, mlp_down_bias, ...withoutMlp } =
  llamaTensors

/** Every MLP is a mixture; a token's shares always add up to 1. */
export const mixtral: Architecture = {
  modelType: 'mixtral',
  prefixes: ['model.'],
  spec(config) {
    const spec = llamaSpec(config, { kvHeads: 8, eps: 1e-5, rope: { defaultTheta: 1e6 } })
    return {
      ...spec,
      ...experts(config, 1, { experts: 8, perToken: 2 }),
      moe_intermediate_size: spec.intermediate_size,
      norm_topk_prob: true,
      layer_windows: sameWindow(spec.num_layers, slidingWindow(config, null)),
    }
  },
  absent: () => attentionBiases,
  tensors: {
    ...withoutMlp,
    ...weight('router', 'layers.{layer}.block_sparse_moe.gate'),
    ...weight('expert_gate', 'layers.{layer}.block_sparse_moe.experts.{part}.w1'),
    ...weight('expert_up', 'layers.{layer}.block_sparse_moe.experts.{part}.w3'),
    ...weight('expert_down', 'layers.{layer}.block_sparse_moe.experts.{part}.w2'),
  },
  ignored: rotaryBuffers,
}

/** Qwen3 whose MLPs are mixtures, but for those of mlp_only_layers and of the layers between every decoder_sparse_step-th. */
export const qwen3Moe: Architecture = {
  modelType: 'qwen3_moe',
  prefixes: ['model.'],
  spec(config) {
    const spec = llamaSpec(config, { kvHeads: 4 })
    const step = config.int('decoder_sparse_step', 1, 1024, 1)
    const only = mlpOnlyLayers(config)
    const dense = Array.from({ length: spec.num_layers }, (_, layer) => layer).filter(
      (layer) => only.includes(layer) || (layer + 1) % step !== 0,
    )
    return {
      ...spec,
      ...experts(config, 0, { experts: 128, perToken: 8 }),
      moe_intermediate_size: intermediateSize(config, 'moe_intermediate_size', 768),
      norm_topk_prob: config.flag('norm_topk_prob', false),
      dense_layers: Int32Array.from(dense),
      qk_norm: 'head',
      layer_windows: sameWindow(
        spec.num_layers,
        config.flag('use_sliding_window', false) ? slidingWindow(config, 4096) : null,
      ),
    }
  },
  absent: (config) => [...(config.flag('attention_bias', false) ? [] : attentionBiases), ...mlpBiases],
  tensors: {
    ...qwen3.tensors,
    ...weight('router', 'layers.{layer}.mlp.gate'),
    ...weight('expert_gate', 'layers.{layer}.mlp.experts.{part}.gate_proj'),
    ...weight('expert_up', 'layers.{layer}.mlp.experts.{part}.up_proj'),
    ...weight('expert_down', 'layers.{layer}.mlp.experts.{part}.down_proj'),
  },
  ignored: rotaryBuffers,
}

function mlpOnlyLayers(config: Fields): number[] {
  const layers = config.raw('mlp_only_layers') ?? []
  if (Array.isArray(layers) && layers.every((layer) => Number.isSafeInteger(layer))) return layers
  throw config.error('mlp_only_layers', 'a list of layers')
}
