// Every family split between ranks, against the same model on one: uneven heads, fewer heads of keys and values than ranks, hidden layers and
// vocabularies that do not divide. The engine also compares the ranks' hidden states with each other, bit for bit.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { forwardLogits, type ModelSource, type StartOptions, startEngine } from '../../src/engine/addon.js'
import { modelMemory } from '../../src/models/memory.js'
import { readOutline } from '../../src/models/outline.js'
import { seededRandom } from '../engine/random_model.js'
import { loadUntokenized } from './untokenized.js'

const fixtures = fileURLToPath(new URL('../fixtures', import.meta.url))
const folders = [
  ...readdirSync(join(fixtures, 'families')).map((name) => join('families', name)),
  ...readdirSync(fixtures).filter((name) => /^(neox|m?t5)/.test(name)),
]

const options: StartOptions = {
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 304,
  max_num_batched_tokens: 50,
  kv_cache_bytes: 1 << 23,
  check_integrity: true,
}

const load = (name: string) => loadUntokenized(join(fixtures, name))

/** Logits of a sequence that is longer than a step and than every window; of an encoder-decoder, of its continuation. */
function logitsOf(model: ModelSource, tensor_parallel_size: number, changed: Partial<StartOptions> = {}): Float32Array {
  const next = seededRandom(1)
  const tokens = (length: number) => Int32Array.from({ length }, () => Math.floor(next() * model.spec.vocab_size))
  const all = { ...options, tensor_parallel_size, ...changed }
  return model.spec.num_encoder_layers > 0
    ? forwardLogits(model, all, tokens(20), tokens(70))
    : forwardLogits(model, all, tokens(70))
}

/** The largest difference, as a part of the largest logit. */
function difference(logits: Float32Array, reference: Float32Array): number {
  const largest = reference.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  expect(logits).toHaveLength(reference.length)
  return (
    // Math.max keeps NaN.
    reference.reduce((most, value, i) => Math.max(most, Math.abs((logits[i] as number) - value)), 0) / largest
  )
}

test.each(folders)('%s: 2 and 3 ranks give the logits of one, to 1e-5 of the largest', async (name) => {
  const model = await load(name)
  const { num_heads } = model.spec
  const one = logitsOf(model, 1)
  for (const ranks of [2, 3]) {
    if (ranks <= num_heads) expect(difference(logitsOf(model, ranks), one), `${ranks} ranks`).toBeLessThan(1e-5)
    else
      expect(() => logitsOf(model, ranks)).toThrow(
        `tensor_parallel_size: expected at most ${num_heads}, the model's number of heads`,
      )
  }
})

test.each([
  ['families/falcon-7b', 7],
  ['families/olmo2-grouped-biases', 5],
  ['families/mixtral-plain', 4],
])('%s: %i ranks, some of which have the same head of keys and values', async (name, ranks) => {
  const model = await load(name)
  expect(difference(logitsOf(model, ranks), logitsOf(model, 1))).toBeLessThan(1e-5)
})

test.each(['families/llama-plain', 't5-v1.1'])('%s: ranks give the same bits with more threads', async (name) => {
  const model = await load(name)
  const bits = (numbers: Float32Array) => new Uint32Array(numbers.buffer)
  const reference = bits(logitsOf(model, 2))
  expect(bits(logitsOf(model, 2, { num_threads: 5 }))).toEqual(reference)
  expect(bits(logitsOf(model, 2, { max_num_batched_tokens: 13 }))).toEqual(reference)
})

describe.each(['families/qwen3-moe-dense-layers', 'families/olmo2-grouped-biases', 'families/opt-350m', 't5-v1.0'])(
  '%s',
  (name) => {
    test.each(['float32', 'float16'] as const)('%s: three ranks hold what their config foretells', async (dtype) => {
      const size = {
        ...options,
        dtype: name.startsWith('t5') ? 'float32' : dtype,
        tensor_parallel_size: 3,
        num_threads: 4,
      } as const
      const outline = await readOutline(join(fixtures, name))
      const memory = modelMemory(outline, size)
      const engine = await startEngine(await load(name), size)
      try {
        const { num_parameters, weight_bytes, kv_cache_bytes, workspace_bytes, num_pages, max_model_len, num_threads } =
          engine.info
        expect(num_parameters).toBe(outline.num_parameters)
        expect(memory).toMatchObject({ kv_cache_bytes, workspace_bytes, num_pages, max_model_len })
        expect([engine.info.tensor_parallel_size, num_threads]).toEqual([3, 4])
        const vectors = 4 * outline.num_vector_parameters
        expect(weight_bytes).toBeLessThanOrEqual(memory.weight_bytes)
        expect(weight_bytes).toBeGreaterThan(memory.weight_bytes - 3 * vectors)
        for await (const _ of engine.submit({ prompt: new Int32Array(150).fill(7), sampling: { max_tokens: 3 } }));
        expect(engine.stats().scratch_bytes).toBe(memory.scratch_bytes)
      } finally {
        await engine.close()
      }
    })
  },
)
