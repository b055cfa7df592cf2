// Readers of config.json that several architectures share, from keys to fields of a ModelSpec.

import type { Activation, ModelSpec } from '../engine/contract.js'
import type { ConfigSpec } from './architecture.js'
import type { Fields } from './fields.js'

/** What an architecture need not say: sequential blocks with a LayerNorm before each branch and full attention, no positions. */
export const plain = {
  embedding_size: 0,
  embedding_scale: 1,
  embedding_norm: false,
  position_embedding: false,
  rope_frequencies: new Float32Array(0),
  local_rope_frequencies: new Float32Array(0),
  long_rope_frequencies: new Float32Array(0),
  long_rope_above: 0,
  rope_scale: 1,
  rope_layout: 'half_split',
  alibi_slopes: new Float32Array(0),
  alibi_in_bfloat16: false,
  layer_windows: new Int32Array(0),
  attention_scale_by_layer: false,
  attention_softcap: 0,
  logit_softcap: 0,
  qk_norm: 'none',
  norm: 'layer',
  norm_placement: 'before',
  final_norm: true,
  topology: 'sequential',
  gated_mlp: false,
  num_experts: 0,
  num_experts_per_tok: 0,
  moe_intermediate_size: 0,
  norm_topk_prob: false,
  dense_layers: new Int32Array(0),
  unembedding_scale: 1,
  num_encoder_layers: 0,
  decoder_start_token: 0,
  relative_buckets: 0,
  relative_max_distance: 128,
} satisfies Partial<ConfigSpec>

/** The first of several names of one setting that a config has, or the first name. */
export function spelled(config: Fields, ...keys: [string, ...string[]]): string {
  return keys.find((key) => config.has(key)) ?? keys[0]
}

/** Names under which a family writes its shape. Each list is tried in turn. */
export interface ShapeKeys {
  hidden: [string, ...string[]]
  layers: [string, ...string[]]
  heads: [string, ...string[]]
  kvHeads?: [string, ...string[]]
  headDim?: string
}

export const usualKeys = {
  hidden: ['hidden_size'],
  layers: ['num_hidden_layers'],
  heads: ['num_attention_heads'],
  kvHeads: ['num_key_value_heads'],
  headDim: 'head_dim',
} satisfies ShapeKeys

/** Width, depth and heads. `defaults`: the class's own values for keys that a config leaves out. */
export function shape(
  config: Fields,
  keys: ShapeKeys,
  defaults: { kvHeads?: number; headDim?: number } = {},
): Pick<
  ModelSpec,
  'vocab_size' | 'hidden_size' | 'num_layers' | 'num_heads' | 'num_kv_heads' | 'head_dim' | 'attention_scale'
> {
  const hiddenKey = spelled(config, ...keys.hidden)
  const hidden_size = config.int(hiddenKey, 1, 131072)
  const headsKey = spelled(config, ...keys.heads)
  const num_heads = config.int(headsKey, 1, 1024)
  let head_dim = hidden_size / num_heads
  if (keys.headDim !== undefined && (config.has(keys.headDim) || defaults.headDim !== undefined)) {
    head_dim = config.int(keys.headDim, 1, 1024, defaults.headDim)
  } else {
    if (!Number.isInteger(head_dim)) throw config.error(hiddenKey, `a multiple of ${headsKey} (${num_heads})`)
    if (head_dim > 1024) throw config.error(hiddenKey, `at most 1024 for each of the ${num_heads} heads`)
  }
  let num_kv_heads = num_heads
  if (keys.kvHeads !== undefined) {
    const key = spelled(config, ...keys.kvHeads)
    num_kv_heads = config.int(key, 1, 1024, defaults.kvHeads ?? num_heads)
    if (num_heads % num_kv_heads !== 0) throw config.error(key, `a divisor of ${headsKey} (${num_heads})`)
  }
  return {
    vocab_size: config.int('vocab_size', 1, 4194304),
    hidden_size,
    num_layers: config.int(spelled(config, ...keys.layers), 1, 1024),
    num_heads,
    num_kv_heads,
    head_dim,
    attention_scale: head_dim ** -0.5,
  }
}

export function intermediateSize(config: Fields, key = 'intermediate_size', fallback?: number): number {
  return config.int(key, 1, 1048576, fallback)
}

export function maxPosition(config: Fields, ...keys: string[]): number {
  return config.int(spelled(config, 'max_position_embeddings', ...keys), 1, 16777216)
}

// gelu_new, gelu_fast and gelu_pytorch_tanh are one function, written in three ways.
const ACTIVATIONS: Record<string, Activation> = {
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
}

export function activation(config: Fields, key: string, fallback: string): Activation {
  const found = activationNamed(config.text(key) ?? fallback)
  if (found !== undefined) return found
  throw config.error(key, `one of ${Object.keys(ACTIVATIONS).join(', ')}`)
}

export function activationNamed(name: string): Activation | undefined {
  return Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined
}

/** A number that is 0 where a config has null, and `fallback` where it has no such key. */
export function optionalReal(config: Fields, key: string, min: number, max: number, fallback: number): number {
  if (config.isNull(key)) return 0
  return config.has(key) ? config.real(key, min, max) : fallback
}

/** Refuses a setting that changes the numbers and is not built. */
export function mustBe(config: Fields, key: string, value: boolean): void {
  if (config.flag(key, value) !== value) throw config.error(key, `${value} (anything else is not built yet)`)
}

/** Windows of layers that are told apart by `layer_types`, or by a rule where a config has no such list. */
export function layerWindows(
  config: Fields,
  num_layers: number,
  window: number | null,
  slides: (layer: number) => boolean,
): Int32Array {
  const types = layerTypes(config, num_layers)
  const sliding = Array.from({ length: num_layers }, (_, layer) =>
    types === null ? slides(layer) : types[layer] === 'sliding_attention',
  )
  if (window === null || !sliding.includes(true)) return new Int32Array(0)
  return Int32Array.from(sliding, (slide) => (slide ? window : 0))
}

/** The same window in every layer, or none. */
export function sameWindow(num_layers: number, window: number | null): Int32Array {
  return window === null ? plain.layer_windows : new Int32Array(num_layers).fill(window)
}

/** `layer_types`, each full_attention or sliding_attention; null when absent. */
function layerTypes(config: Fields, num_layers: number): string[] | null {
  const types = config.raw('layer_types')
  if (types === undefined) return null
  const known = ['full_attention', 'sliding_attention']
  if (!Array.isArray(types) || types.length !== num_layers || !types.every((type) => known.includes(type))) {
    throw config.error('layer_types', `a list of ${num_layers}, each full_attention or sliding_attention`)
  }
  return types
}

/** A number of keys, or null for none. `fallback` stands in for a key that is absent, not for one that is null. */
export function slidingWindow(config: Fields, fallback: number | null): number | null {
  if (config.isNull('sliding_window')) return null
  if (!config.has('sliding_window')) return fallback
  return config.int('sliding_window', 1, 16777216)
}
