// Models with random weights, made on the spot: a file of numbers and the TensorSources that say where they lie.

import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ModelSource } from '../../src/engine/addon.js'
import type { DType, ModelSpec, TensorRole, TensorSource } from '../../src/engine/contract.js'
import { frequencies } from '../../src/models/rope.js'
import { plain } from '../../src/models/spec.js'

/** Mulberry32: 32-bit state, uniform in [0, 1). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** The spec of a GPT-NeoX-like decoder; intermediate size 4 x hidden, a quarter of each head rotated. */
export function neoxSpec(shape: {
  vocab: number
  hidden: number
  layers: number
  heads: number
  positions: number
}): ModelSpec {
  const head_dim = shape.hidden / shape.heads
  return {
    ...plain,
    vocab_size: shape.vocab,
    num_sampled_ids: shape.vocab,
    hidden_size: shape.hidden,
    num_layers: shape.layers,
    num_heads: shape.heads,
    num_kv_heads: shape.heads,
    head_dim,
    intermediate_size: 4 * shape.hidden,
    max_position: shape.positions,
    rope_frequencies: frequencies(10000, 2 * Math.floor(head_dim / 8)),
    norm_eps: 1e-5,
    attention_scale: 1 / Math.sqrt(head_dim),
    activation: 'gelu',
    topology: 'parallel',
    tie_word_embeddings: false,
  }
}

export const tinySpec = neoxSpec({ vocab: 97, hidden: 32, layers: 2, heads: 4, positions: 128 })

/** Bytes of `count` random numbers of `dtype`, float32 ones uniform in [-scale, scale]. */
function randomNumbers(dtype: DType, count: number, scale: number, next: () => number): Uint8Array {
  if (dtype === 'float32') {
    const numbers = new Float32Array(count)
    for (let i = 0; i < count; i++) numbers[i] = (next() * 2 - 1) * scale
    return new Uint8Array(numbers.buffer)
  }
  // 16-bit weights are only used for their size and speed: bit patterns near +-scale serve.
  const exponent = Math.round(Math.log2(scale))
  const base = dtype === 'float16' ? (exponent + 15) << 10 : (exponent + 127) << 7
  const mantissa = dtype === 'float16' ? 0x3ff : 0x7f
  const numbers = new Uint16Array(count)
  for (let i = 0; i < count; i++) {
    const random = (next() * 65536) | 0
    numbers[i] = base | (random & mantissa) | (random & 0x8000)
  }
  return new Uint8Array(numbers.buffer)
}

/** Writes random weights for `spec` into a new temporary folder; dispose() removes it. */
export function makeRandomModel(
  spec: ModelSpec,
  options: { dtype?: DType; seed?: number; scale?: number } = {},
): ModelSource & { dispose(): void } {
  const { dtype = 'float32', seed = 1, scale = 0.15 } = options
  const next = seededRandom(seed)
  const folder = mkdtempSync(join(tmpdir(), 'parley-random-model-'))
  const path = join(folder, 'weights.bin')
  const file = openSync(path, 'w')
  const tensors: TensorSource[] = []
  let offset = 0
  const add = (role: TensorRole, layer: number, rows: number, cols: number) => {
    const bytes = randomNumbers(dtype, rows * cols, scale, next)
    writeSync(file, bytes)
    tensors.push({
      role,
      encoder: false,
      layer,
      part: 0,
      dtype,
      file: 0,
      offset,
      stored_rows: rows,
      cols,
      first_row: 0,
      group_rows: rows,
      group_stride: rows,
      num_groups: 1,
      transposed: false,
      addend: 0,
    })
    offset += bytes.length
  }
  const { vocab_size, hidden_size, intermediate_size } = spec
  const query = spec.num_heads * spec.head_dim
  const kv = spec.num_kv_heads * spec.head_dim
  add('embedding', 0, vocab_size, hidden_size)
  for (let layer = 0; layer < spec.num_layers; layer++) {
    for (const norm of ['attention_norm', 'mlp_norm'] as const) {
      add(`${norm}_weight`, layer, hidden_size, 1)
      add(`${norm}_bias`, layer, hidden_size, 1)
    }
    for (const [name, rows, cols] of [
      ['query', query, hidden_size],
      ['key', kv, hidden_size],
      ['value', kv, hidden_size],
      ['attention_out', hidden_size, query],
      ['mlp_up', intermediate_size, hidden_size],
      ['mlp_down', hidden_size, intermediate_size],
    ] as const) {
      add(`${name}_weight`, layer, rows, cols)
      add(`${name}_bias`, layer, rows, 1)
    }
  }
  add('final_norm_weight', 0, hidden_size, 1)
  add('final_norm_bias', 0, hidden_size, 1)
  if (!spec.tie_word_embeddings) add('unembedding', 0, vocab_size, hidden_size)
  closeSync(file)
  return { spec, tensors, files: [path], dispose: () => rmSync(folder, { recursive: true }) }
}
