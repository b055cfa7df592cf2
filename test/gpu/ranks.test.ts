// Models split between ranks through native/cuda, whose emulator has as many GPUs as the test says: against the same model on one rank.
// Some families; with PARLEY_TEST_ALL=1 all of them.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, test } from 'vitest'
import { forwardLogits, type ModelSource, type StartOptions, startEngine } from '../../src/engine/addon.js'
import { type Engine, EngineFailure } from '../../src/engine/engine.js'
import { makeRandomModel, neoxSpec } from '../engine/random_model.js'
import { collect } from '../engine/tiny_engine.js'
import { loadUntokenized } from '../models/untokenized.js'
import { emulated } from './emulator_control.js'

const fixtures = fileURLToPath(new URL('../fixtures', import.meta.url))
const all = [
  ...readdirSync(join(fixtures, 'families')).map((name) => join('families', name)),
  ...readdirSync(fixtures).filter((name) => /^(neox|m?t5)/.test(name)),
]
// Sequential and parallel branches, one head of keys and values, experts, norms of whole rows, projections, an encoder.
const some = ['falcon-7b', 'mixtral-plain', 'olmo2-grouped-biases', 'opt-350m'].map((name) => join('families', name))
const chosen = (names: string[]) => (process.env.PARLEY_TEST_ALL ? all : names)

const options: StartOptions = {
  device: 'cuda',
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 64,
  max_num_batched_tokens: 13,
  kv_cache_bytes: 1 << 18,
  check_integrity: true,
  rank_stopped_after_ms: 60_000,
}

const load = (name: string) => loadUntokenized(join(fixtures, name))

/** How many GPUs the emulator has; a real driver does not care. */
function emulate(devices: number): void {
  process.env.PARLEY_EMULATED_DEVICES = String(devices)
}
afterEach(() => {
  delete process.env.PARLEY_EMULATED_DEVICES
  delete process.env.PARLEY_EMULATED_PEER_ACCESS
})

function logitsOf(model: ModelSource, tensor_parallel_size: number): Float32Array {
  const tokens = Int32Array.from({ length: 20 }, (_, i) => (i * 7919 + 5) % model.spec.vocab_size)
  const sized = { ...options, tensor_parallel_size }
  return model.spec.num_encoder_layers > 0
    ? forwardLogits(model, sized, tokens, tokens)
    : forwardLogits(model, sized, tokens)
}

describe.each([
  [1, chosen(['families/neox-parallel'])],
  [2, chosen([...some, 'neox-sequential', 't5-v1.1'])],
])('on %i GPUs', (devices, folders) => {
  test.each(folders)('%s: two ranks give the logits of one, to 1e-5 of the largest', async (name) => {
    const model = await load(name)
    if (model.spec.num_heads === 1) return
    emulate(devices)
    const [one, two] = [logitsOf(model, 1), logitsOf(model, 2)]
    const largest = one.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    // Math.max keeps NaN.
    const worst = one.reduce((most, value, i) => Math.max(most, Math.abs((two[i] as number) - value)), 0)
    expect(worst / largest).toBeLessThan(1e-5)
  })
})

// Hidden layers of 512 columns, of whose sums 2, 4 and 8 ranks have whole slices.
describe('with `deterministic`', () => {
  const shape = { vocab: 101, hidden: 64, layers: 1, heads: 8, positions: 64 }
  test.each([
    ['parallel branches', { topology: 'parallel' }],
    ['sequential branches, few heads of keys and values', { topology: 'sequential', num_kv_heads: 2 }],
  ] as const)('%s: 2, 4 and 8 ranks give the bits of one', (_, changed) => {
    const model = makeRandomModel({ ...neoxSpec(shape), head_dim: 64, intermediate_size: 512, ...changed })
    const bits = (tensor_parallel_size: number, devices: number, dtype: 'float32' | 'float16') => {
      emulate(devices)
      const tokens = Int32Array.from({ length: 5 }, (_, i) => i * 7 + 5)
      const sized = { ...options, dtype, max_num_batched_tokens: 3, tensor_parallel_size }
      return new Uint32Array(forwardLogits(model, sized, tokens).buffer)
    }
    try {
      const one = bits(1, 1, 'float32')
      expect(bits(2, 2, 'float32')).toEqual(one)
      expect(bits(4, 4, 'float32')).toEqual(one)
      expect(bits(8, 1, 'float32')).toEqual(one)
      expect(bits(3, 1, 'float32')).not.toEqual(one)
      expect(bits(4, 1, 'float16')).toEqual(bits(1, 1, 'float16'))
    } finally {
      model.dispose()
    }
  })
})

// Those that have a GPU each record steps as graphs, those that share one do not.
test.each([2, 3])('three ranks on %i GPUs answer as one', async (devices) => {
  const model = await load('families/llama-plain')
  const requests = [3, 1, 17].map((length) => ({
    prompt: new Int32Array(length).fill(7),
    sampling: { max_tokens: 6, temperature: 0, ignore_eos: true },
  }))
  const answers = async (tensor_parallel_size: number) => {
    const engine = await startEngine(model, { ...options, tensor_parallel_size })
    try {
      const events = await Promise.all(requests.map((request) => collect(engine, request)))
      return events.map((request) => request.map(({ token }) => token))
    } finally {
      await engine.close()
    }
  }
  emulate(devices)
  expect(await answers(3)).toEqual(await answers(1))
})

test.skipIf(!emulated)('GPUs that cannot read each other meet in the host, with the same bits', async () => {
  const model = await load('families/llama-plain')
  emulate(2)
  const expected = logitsOf(model, 2)
  process.env.PARLEY_EMULATED_PEER_ACCESS = '0'
  expect(logitsOf(model, 2)).toEqual(expected)
  await expect(startEngine(model, { ...options, tensor_parallel_size: 3 })).rejects.toThrow(
    'GPU 0 cannot read the memory of GPU 1, which ranks that share GPUs would have to',
  )
})

test('a rank that stops ends what runs with its reason, and the engine takes nothing more', async () => {
  emulate(2)
  const stopping = { tensor_parallel_size: 2, rank_stops_in_step: 4, rank_stopped_after_ms: 800 }
  const engine: Engine = await startEngine(await load('families/llama-plain'), { ...options, ...stopping })
  try {
    const reason = 'rank 1 of 2 has stopped: it has not moved for 800 ms while the others waited for it'
    const request = { prompt: Int32Array.of(5, 6, 7), sampling: { max_tokens: 20, ignore_eos: true } }
    await expect(collect(engine, request)).rejects.toThrow(new EngineFailure(reason))
    expect(engine.stats()).toMatchObject({ num_stopped_ranks: 1, num_requests_running: 0, num_pages_used: 0 })
    await expect(collect(engine, request)).rejects.toThrow(new EngineFailure(reason))
  } finally {
    await engine.close()
  }
})
