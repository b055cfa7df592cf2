// What an engine on a GPU does to the GPU's memory while it runs, and what a GPU without memory does to its requests.

import { fileURLToPath } from 'node:url'
import { afterAll, beforeEach, expect, test, vi } from 'vitest'
import { cudaDevices, type StartOptions, startEngine } from '../../src/engine/addon.js'
import { EngineFailure, type EngineRequest, type TokenEvent } from '../../src/engine/engine.js'
import { loadUntokenized } from '../models/untokenized.js'
import { EmulatorControl, emulated } from './emulator_control.js'

const control = new EmulatorControl()
process.env.PARLEY_EMULATED_CONTROL = control.path
beforeEach(({ skip }) => skip(!emulated, 'only the emulated GPU counts what is called, and fails on demand'))
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

/** Returns when so many have been made: they are made beside the steps. */
const graphs = (count: number) => vi.waitUntil(() => control.counts().graphs >= count, { timeout: 30_000 })

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
    await graphs(before + 1)
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
    expect(changes.graph_launches).toBeGreaterThan(0)
  } finally {
    await engine.close()
  }
})

test.each<[string, Sampling]>([
  ['greedy', { temperature: 0 }],
  ['sampled', { temperature: 0.8, top_p: 0.9, num_logprobs: 3 }],
  ['with lists', { presence_penalty: 0.5, bias_ids: Int32Array.of(4), bias_values: Float32Array.of(5) }],
])('a step that decodes is one graph, one copy to the GPU and one back: %s', async (_, sampling) => {
  const engine = await start()
  try {
    const before = control.counts().graphs
    await tokens(engine.submit(request(5, 4)))
    await graphs(before + 1)
    const changes = await counted(() => tokens(engine.submit(request(5, 41, sampling))))
    // The first of the 41 tokens is the prompt's, whose step is of its own kind.
    expect(changes).toMatchObject({ graphs: 0, graph_launches: 40, copies_to_device: 41, copies_to_host: 41 })
  } finally {
    await engine.close()
  }
})

test('steps of several requests, of prompts in parts and of scores are one copy to the GPU too', async () => {
  const engine = await start()
  try {
    const begin = engine.stats().num_steps
    const changes = await counted(() =>
      Promise.all([
        tokens(engine.submit(request(70, 12, { num_prompt_logprobs: 2 }))),
        tokens(engine.submit(request(9, 20, { temperature: 0.7, frequency_penalty: 0.5 }))),
        tokens(engine.submit(request(4, 30, { bad_word_ids: Int32Array.of(3), bad_word_sizes: Int32Array.of(1) }))),
      ]),
    )
    expect(changes.copies_to_device).toBe(engine.stats().num_steps - begin)
  } finally {
    await engine.close()
  }
})

test('an encoder takes a prompt in many parts, for none of which memory is taken', async () => {
  const t5 = await loadUntokenized(fileURLToPath(new URL('../fixtures/t5-v1.1', import.meta.url)))
  const engine = await startEngine(t5, { ...options, max_num_batched_tokens: 8 })
  try {
    const changes = await counted(() => tokens(engine.submit(request(60, 2))))
    expect(changes.allocations).toBe(0)
  } finally {
    await engine.close()
  }
})

test('no step waits for a graph', async () => {
  const engine = await start()
  try {
    control.fault('slow graphs')
    let expected: number[] = []
    const before = control.counts().graphs
    const without = await counted(async () => {
      expected = await tokens(engine.submit(request(5, 12)))
    })
    expect(without).toMatchObject({ graphs: 0, graph_launches: 0 })
    control.fault('none')
    await graphs(before + 1)
    const changes = await counted(async () => expect(await tokens(engine.submit(request(5, 12)))).toEqual(expected))
    expect(changes.graph_launches).toBe(11)
  } finally {
    control.fault('none')
    await engine.close()
  }
})

test.each(['no memory', 'no graphs'] as const)('%s: steps go on without a graph, and say so once', async (fault) => {
  const warnings: string[] = []
  const warn = ({ message }: Error) => warnings.push(message)
  process.on('warning', warn)
  const engine = await start()
  try {
    const before = control.counts().graphs
    const expected = await tokens(engine.submit(request(5, 3)))
    await graphs(before + 1)
    control.fault(fault)
    const changes = await counted(async () => {
      const answers = [5, 6, 7].map((length) => tokens(engine.submit(request(length, 12))))
      const [first] = await Promise.all(answers)
      expect(first?.slice(0, 3)).toEqual(expected)
    })
    expect(changes.graphs).toBe(0)
    await expect.poll(() => warnings).toEqual([expect.stringContaining('steps are not recorded as graphs any more')])
    await tokens(engine.submit(request(5, 30)))
    expect(warnings).toHaveLength(1)
  } finally {
    process.off('warning', warn)
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
