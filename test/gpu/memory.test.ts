// What an engine on a GPU does to the GPU's memory while it runs, and what a GPU without memory does to its requests.

import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { cudaDevices, type StartOptions, startEngine } from '../../src/engine/addon.js'
import { EngineFailure, type EngineRequest, type TokenEvent } from '../../src/engine/engine.js'
import { loadUntokenized } from '../models/untokenized.js'
import { EmulatorControl } from './emulator_control.js'

const control = new EmulatorControl()
process.env.PARLEY_EMULATED_CONTROL = control.path
afterAll(() => control.close())

const options: StartOptions = {
  device: 'cuda',
  dtype: 'float16',
  max_model_len: 128,
  max_num_batched_tokens: 32,
  max_num_seqs: 4,
  kv_cache_bytes: 1 << 20,
}
const source = await loadUntokenized(fileURLToPath(new URL('../fixtures/families/neox-parallel', import.meta.url)))
const start = () => startEngine(source, options)

/** CUDA's allocations, and the parts of one, begin at multiples of 256 bytes. */
const rounding = 64 << 10

type Sampling = Partial<EngineRequest['sampling']>
const request = (length: number, max_tokens: number, sampling: Sampling = {}): EngineRequest => ({
  prompt: Int32Array.from({ length }, (_, i) => (7 * i) % 50),
  sampling: { max_tokens, seed: length, ignore_eos: true, ...sampling },
})

async function tokens(events: AsyncIterable<TokenEvent>): Promise<number[]> {
  const found: number[] = []
  for await (const { token } of events) found.push(token)
  return found
}

/** What a call changes in the counts. */
async function counted(work: () => Promise<unknown>) {
  const before = control.counts()
  await work()
  const after = control.counts()
  const names = Object.keys(after) as (keyof typeof after)[]
  return Object.fromEntries(names.map((name) => [name, after[name] - before[name]])) as typeof after
}

async function freeBytes(): Promise<number> {
  const [gpu] = await cudaDevices(1)
  return gpu?.freeBytes ?? Number.NaN
}

test.each(['neox-parallel', 'mixtral-plain', 'gemma2-windows'])('%s: the GPU holds what was planned', async (name) => {
  const before = await freeBytes()
  const family = await loadUntokenized(fileURLToPath(new URL(`../fixtures/families/${name}`, import.meta.url)))
  const engine = await startEngine(family, options)
  try {
    const { weight_bytes, workspace_bytes, kv_cache_bytes } = engine.info
    const held = before - (await freeBytes())
    await tokens(engine.submit(request(40, 5)))
    expect(before - (await freeBytes())).toBe(held)
    expect(held).toBeLessThanOrEqual(weight_bytes + workspace_bytes + kv_cache_bytes + rounding)
    expect(held).toBeGreaterThan(weight_bytes + workspace_bytes + kv_cache_bytes - rounding)
  } finally {
    await engine.close()
  }
  expect(await freeBytes()).toBe(before)
})

test('a start records no graph; a warm engine allocates nothing, whatever the steps hold', async () => {
  const before = control.counts().graphs
  const engine = await start()
  try {
    expect(control.counts().graphs).toBe(before)
    await tokens(engine.submit(request(5, 3)))
    expect(control.counts().graphs).toBe(before + 1)
    const begin = engine.stats().num_steps
    const changes = await counted(() =>
      Promise.all([
        tokens(engine.submit(request(70, 50, { num_logprobs: 5, num_prompt_logprobs: 2 }))),
        tokens(engine.submit(request(9, 110, { temperature: 0.7, top_p: 0.9, presence_penalty: 0.5 }))),
        tokens(engine.submit(request(31, 20, { bias_ids: Int32Array.of(4), bias_values: Float32Array.of(5) }))),
        tokens(engine.submit(request(2, 90, { bad_word_ids: Int32Array.of(3), bad_word_sizes: Int32Array.of(1) }))),
      ]),
    )
    expect(engine.stats().num_steps - begin).toBeGreaterThanOrEqual(100)
    expect(changes.allocations).toBe(0)
    expect(changes.graphs).toBeGreaterThan(0)
    expect(changes.graph_launches).toBeGreaterThan(60)
  } finally {
    await engine.close()
  }
})

test('a step that only decodes is one graph, and three copies to the GPU: its lists, its plan, its rows to sample', async () => {
  const engine = await start()
  try {
    await tokens(engine.submit(request(5, 4)))
    const changes = await counted(() => tokens(engine.submit(request(5, 41))))
    // The first of the 41 tokens is the prompt's, whose step is of its own kind.
    expect(changes).toMatchObject({ graphs: 0, graph_launches: 40, copies_to_device: 3 * 41, copies_to_host: 41 })
  } finally {
    await engine.close()
  }
})

test('without memory for a graph, steps go on without it', async () => {
  const engine = await start()
  try {
    const [expected] = await tokens(engine.submit(request(5, 1)))
    control.fault('no memory')
    const changes = await counted(async () => {
      const [first, ...others] = await tokens(engine.submit(request(5, 8)))
      expect(first).toBe(expected)
      expect(others).toHaveLength(7)
    })
    expect(changes).toMatchObject({ graphs: 0, graph_launches: 0 })
  } finally {
    control.fault('none')
    await engine.close()
  }
})

test('without memory for the lists of a request, it fails, and no other', async () => {
  const engine = await start()
  const long: Sampling = { allowed_token_ids: Int32Array.from({ length: 50_000 }, (_, i) => i % 40) }
  try {
    const alone = await tokens(engine.submit(request(6, 12)))
    control.fault('no memory')
    const others = [1, 2, 3].map(() => tokens(engine.submit(request(6, 12))))
    await expect(tokens(engine.submit(request(7, 12, long)))).rejects.toThrow(EngineFailure)
    expect(await Promise.all(others)).toEqual([alone, alone, alone])
    control.fault('none')
    const allowed = await tokens(engine.submit(request(7, 12, long)))
    expect(allowed).toHaveLength(12)
    expect(Math.max(...allowed)).toBeLessThan(40)
  } finally {
    control.fault('none')
    await engine.close()
  }
})

test('an engine that has no memory to start with says so', async () => {
  control.fault('no memory')
  try {
    await expect(start()).rejects.toThrow('CUDA: memory of the GPU: out of memory (cudaErrorMemoryAllocation)')
  } finally {
    control.fault('none')
  }
})
