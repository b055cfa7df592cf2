// How memory is shared out between weights, workspace and KV pages.

import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { fitOptions, OptionError, readTable } from '../src/config.js'
import { readOutline } from '../src/models/outline.js'
import { cudaContextBytes, engineDtype, gpuBudget, sizeEngine, type TooLarge } from '../src/sizing.js'
import { pythia } from './pythia.js'

const MiB = 2 ** 20
const GiB = 2 ** 30

const options = (flags: Record<string, string> = {}) => ({
  ...readTable(fitOptions, { threads: '2', isa: 'baseline', ...flags }, {}),
  device: 'cpu' as const,
})

test('weights and workspace come first, KV pages are a part of what is left', () => {
  const free = 8 * GiB
  const { memory, options: engine } = sizeEngine(pythia, options(), free)
  expect(memory.weight_bytes / GiB).toBeCloseTo(2.64, 1)
  expect(memory.workspace_bytes / MiB).toBeGreaterThan(50)
  const left = free - memory.weight_bytes - memory.workspace_bytes
  expect(memory.kv_cache_bytes).toBeLessThanOrEqual(0.8 * left)
  expect(memory.kv_cache_bytes).toBeGreaterThan(0.8 * left - memory.page_bytes)
  expect(engine).toMatchObject({ dtype: 'float16', max_model_len: 2048, num_threads: 2 })
  expect(memory.page_bytes / memory.page_size).toBe(196608)
})

test('on a GPU the pages take all of its share, but for what CUDA takes', () => {
  const budget = gpuBudget(8 * GiB, 0.75)
  expect(budget).toBe(6 * GiB - cudaContextBytes)
  const { memory, options: engine } = sizeEngine(
    pythia,
    { ...options(), device: 'cuda', deterministic: true },
    budget,
    1,
  )
  expect(engine).toMatchObject({ device: 'cuda', deterministic: true, tensor_parallel_size: 1 })
  const left = budget - memory.weight_bytes - memory.workspace_bytes - memory.kv_cache_bytes
  expect(left).toBeGreaterThanOrEqual(0)
  expect(left).toBeLessThan(memory.page_bytes)
  const asked = { ...options({ kv_cache_memory: '0.5' }), device: 'cuda' as const }
  expect(sizeEngine(pythia, asked, budget, 1).memory.num_pages).toBe(Math.floor(memory.num_pages / 2))
})

test('no more pages than all requests together can fill', () => {
  const { memory } = sizeEngine(pythia, options({ max_num_seqs: '3', max_model_len: '1000' }), 100 * GiB)
  expect(memory.num_pages).toBe(3 * (63 + 1))
})

test('the context is what the pages hold', () => {
  const { memory } = sizeEngine(pythia, options({ kv_cache_memory: '250MiB' }), 8 * GiB)
  expect(memory.max_model_len).toBe(Math.floor((250 * MiB) / memory.page_bytes) * 16)
})

test.each([
  [2 * GiB, {}, /^2\.6\d GiB of weights, [\d.]+ MiB of workspace and 99\.0 MiB of KV pages at least$/],
  [2.8 * GiB, {}, /KV pages at least$/],
  [8 * GiB, { kv_cache_memory: '6GiB' }, /and 6\.00 GiB of KV pages$/],
  [4 * GiB, { dtype: 'float32' }, /^5\.\d+ GiB of weights/],
])('%d bytes with %o are too few', (free, flags, message) => {
  expect(() => sizeEngine(pythia, options(flags), free)).toThrow(message)
  try {
    sizeEngine(pythia, options(flags), free)
  } catch (error) {
    expect((error as TooLarge).needed).toBeGreaterThan(free)
    expect(() => sizeEngine(pythia, options(flags), (error as TooLarge).needed * 1.05)).not.toThrow()
  }
})

test('a context beyond the model is refused, a longer one of longrope is for those who ask', async () => {
  expect(() => sizeEngine(pythia, options({ max_model_len: '2049' }), 8 * GiB)).toThrow(
    new OptionError("--max-model-len: expected at most 2048, the model's context, got 2049"),
  )
  const long = await readOutline(fileURLToPath(new URL('fixtures/families/phi3-long', import.meta.url)))
  expect(sizeEngine(long, options(), GiB).memory.max_model_len).toBe(long.spec.long_rope_above)
  const all = String(long.spec.max_position)
  expect(sizeEngine(long, options({ max_model_len: all }), GiB).memory.max_model_len).toBe(long.spec.max_position)
})

test('several ranks take a little more in all, of each device a part, and have a head each', () => {
  const size = (ranks: number, devices: number | null = null) =>
    sizeEngine(pythia, options({ tensor_parallel_size: String(ranks), kv_cache_memory: '1GiB' }), 8 * GiB, devices)
  const [one, two, device] = [size(1), size(2), size(1, 2)]
  expect(two.options).toMatchObject({ tensor_parallel_size: 2, kv_cache_bytes: one.options.kv_cache_bytes })
  expect(two.memory.page_bytes).toBe(one.memory.page_bytes)
  expect(two.memory.weight_bytes / one.memory.weight_bytes).toBeCloseTo(1, 2)
  expect(two.memory.workspace_bytes).toBeGreaterThan(one.memory.workspace_bytes)
  expect(device.options.tensor_parallel_size).toBe(2)
  expect(device.memory.page_bytes).toBe(one.memory.page_bytes / 2)
  expect(device.memory.weight_bytes / one.memory.weight_bytes).toBeCloseTo(1 / 2, 2)
  expect(device.memory.num_pages).toBe(2 * one.memory.num_pages)
  expect(() => size(17)).toThrow(
    new OptionError("--tensor-parallel-size: expected at most 16, the model's number of heads, got 17"),
  )
})

test('auto is a 16-bit type that is safe', () => {
  const dtype = (checkpointDtype: 'float32' | 'float16' | 'bfloat16', float16Problem: string | null = null) =>
    engineDtype('auto', { checkpointDtype, float16Problem })
  expect([dtype('float32'), dtype('float16'), dtype('bfloat16')]).toEqual(['float16', 'float16', 'bfloat16'])
  expect(dtype('float32', 'it overflows')).toBe('bfloat16')
  expect(engineDtype('float32', { checkpointDtype: 'float16', float16Problem: null })).toBe('float32')
  expect(() => engineDtype('float16', { checkpointDtype: 'float32', float16Problem: 'it overflows' })).toThrow(
    '--dtype: expected bfloat16 or float32, because it overflows, got float16',
  )
})
