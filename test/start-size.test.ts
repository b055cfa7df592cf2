// What a server says of memory before it loads a model: on the CPU, on a GPU, and with several ranks on one. The GPU is the emulated one.

import { expect, test } from 'vitest'
import { fitOptions, readOptions, readTable } from '../src/config.js'
import type { ChosenDevice } from '../src/device.js'
import { fitOf, type Place } from '../src/fit-plan.js'
import type { Model } from '../src/models/model.js'
import { modelLines, sizeHere } from '../src/start-size.js'
import { pythia } from './pythia.js'

const GiB = 2 ** 30

const options = (flags: Record<string, string> = {}) => readOptions({ threads: '2', isa: 'baseline', ...flags }, {})

function gpus(count: number, totalBytes: number, freeBytes = totalBytes): ChosenDevice {
  const gpu = { name: 'a GPU', computeCapability: '9.0', totalBytes, freeBytes, hasCublasLt: false }
  return { kind: 'cuda', gpus: [gpu, ...Array.from({ length: count - 1 }, () => gpu)] }
}

const size = (device: ChosenDevice, flags: Record<string, string> = {}) =>
  sizeHere(pythia, options(flags), device, 'pythia')

test('the table of a GPU adds up to its memory', async () => {
  const sized = await size(gpus(1, 24 * GiB), { max_num_seqs: '1000' })
  expect(sized.options).toMatchObject({ device: 'cuda', deterministic: false, tensor_parallel_size: 1 })
  const { weight_bytes, workspace_bytes, kv_cache_bytes, page_bytes } = sized.memory
  const [context] = sized.others
  const taken = weight_bytes + workspace_bytes + kv_cache_bytes + context
  expect(taken).toBeLessThanOrEqual(0.9 * 24 * GiB)
  expect(taken).toBeGreaterThan(0.9 * 24 * GiB - page_bytes)
  expect(taken + (sized.left ?? 0)).toBe(24 * GiB)
  expect(modelLines({ ...pythia, spec: pythia.spec } as Model, sized).slice(2)).toEqual([
    '  memory   24.0 GiB on the GPU, of which 21.6 GiB may be taken (--gpu-memory-utilization 0.9)',
    '           2.64 GiB weights',
    expect.stringMatching(/^ +[\d.]+ MiB workspace$/),
    "            600 MiB CUDA's context, kernels and graphs",
    expect.stringMatching(/^ +18\.\d GiB KV pages: [\d,]+ tokens, \d+ requests of 2,048 at the same time$/),
    '           2.40 GiB left',
  ])
})

test('`parley fit` foretells what a GPU of this machine gives', async () => {
  const place: Place = { memory: 24 * GiB, bound: null, devices: 1, gpus: [], planner: 'cuda' }
  const fit = fitOf('pythia', pythia, readTable(fitOptions, { threads: '2' }, {}), place)
  const { memory } = await size(gpus(1, 24 * GiB))
  const { weight_bytes, workspace_bytes, kv_cache_bytes } = memory
  expect(fit).toMatchObject({ weight_bytes, workspace_bytes, kv_cache_bytes })
})

test('ranks have a GPU each, or share what one has', async () => {
  const flags = { tensor_parallel_size: '2', max_num_seqs: '1000' }
  const two = await size(gpus(2, 24 * GiB), flags)
  const shared = await size(gpus(1, 24 * GiB), flags)
  expect(two.memory.kv_cache_bytes).toBeGreaterThan(1.9 * shared.memory.kv_cache_bytes)
  expect(shared.total).toMatch(/; what follows is of each of 2 ranks on it$/)
  const { weight_bytes, workspace_bytes, kv_cache_bytes } = shared.memory
  expect(2 * (weight_bytes + workspace_bytes + kv_cache_bytes)).toBeLessThanOrEqual(0.9 * 24 * GiB - shared.others[0])
})

test('a model that is too large for the GPU, or for what others leave of it, is refused with what would help', async () => {
  await expect(size(gpus(1, 3 * GiB))).rejects.toThrow(
    /^pythia does not fit: it takes 2\.64 GiB of weights, .*, with 600 MiB for CUDA's context 3\.\d+ GiB in all, and there are 3\.00 GiB on the GPU, of which 2\.70 GiB may be taken \(--gpu-memory-utilization 0\.9\); the largest known model that fits is .+; `parley fit --devices 1` shows all; --device cpu serves it from the memory of the machine$/,
  )
  const busy = gpus(1, 24 * GiB, 4 * GiB)
  await expect(size(busy)).rejects.toThrow(
    /^others use the GPU's memory: 4\.00 GiB of 24\.0 GiB are free, and pythia would take [\d.]+ GiB; a lower --gpu-memory-utilization makes it take less$/,
  )
  expect((await size(busy, { gpu_memory_utilization: '0.18' })).memory.num_pages).toBeGreaterThan(32)
})
