// Back-pressure: a request whose tokens nobody reads pauses, and is in nobody's way.

import { setImmediate } from 'node:timers/promises'
import { afterAll, expect, test } from 'vitest'
import type { StartOptions } from '../../src/engine/addon.js'
import type { EngineStats } from '../../src/engine/contract.js'
import type { Engine, EngineRequest, TokenEvent } from '../../src/engine/engine.js'
import { makeRandomModel, tinySpec } from './random_model.js'
import { collect, pageBytes, withEngine } from './tiny_engine.js'

const model = makeRandomModel(tinySpec)
afterAll(() => model.dispose())
const run = <T>(options: Partial<StartOptions>, body: (engine: Engine) => Promise<T>) =>
  withEngine(model, options, body)

/** Eight of its tokens may wait. */
const request = (first: number, length = 20): EngineRequest => ({
  prompt: Int32Array.from({ length }, (_, i) => (first + i) % tinySpec.vocab_size),
  sampling: { max_tokens: 90, seed: first, num_logprobs: 2 },
  max_unread_bytes: 1,
})

async function until(engine: Engine, test: (stats: EngineStats) => boolean): Promise<void> {
  while (!test(engine.stats())) await setImmediate()
}

/** Reads one event of a request; it is paused when this returns. @returns what reads all of it */
async function stall(
  engine: Engine,
  request: EngineRequest,
  signal?: AbortSignal,
): Promise<() => Promise<TokenEvent[]>> {
  const { num_requests_paused } = engine.stats()
  const iterator = engine.submit(request, signal)[Symbol.asyncIterator]()
  const first = await iterator.next()
  await until(engine, (stats) => stats.num_requests_paused > num_requests_paused)
  return async () => {
    const all = []
    for (let next = first; !next.done; next = await iterator.next()) {
      const { cached_tokens: _, ...event } = next.value
      all.push(event)
    }
    return all
  }
}

test('it pauses where its reader is behind, and goes on to the same end', async () => {
  const alone = await run({}, (engine) => collect(engine, request(1)))
  await run({}, async (engine) => {
    const readOn = await stall(engine, request(1))
    const { num_steps, num_generation_tokens, num_requests_running, num_pages_used } = engine.stats()
    expect({ num_generation_tokens, num_requests_running }).toEqual({
      num_generation_tokens: 8,
      num_requests_running: 0,
    })
    expect(num_pages_used).toBe(2)
    await collect(engine, { prompt: Int32Array.of(1), sampling: { max_tokens: 50 } })
    expect(engine.stats().num_steps).toBe(num_steps + 50)
    expect(await readOn()).toEqual(alone)
    expect(engine.stats()).toMatchObject({ num_requests_paused: 0, num_pages_used: 0, num_preemptions: 0 })
  })
})

test('what waits is bounded by bytes: fewer tokens of many choices, or with many log-probabilities', async () => {
  await run({}, async (engine) => {
    const generated = async (sampling: Partial<EngineRequest['sampling']>, count: number) => {
      const before = engine.stats().num_generation_tokens
      const asked = { ...request(1), max_unread_bytes: 2000, sampling: { max_tokens: 100, ...sampling } }
      const choices = engine.submitChoices(asked, count)
      await until(engine, (stats) => stats.num_requests_paused === count)
      const { num_generation_tokens } = engine.stats()
      for (const choice of choices) await choice[Symbol.asyncIterator]().return?.()
      await until(engine, (stats) => stats.num_requests_paused === 0)
      return num_generation_tokens - before
    }
    expect(await generated({}, 2)).toBe(100) // of 20 bytes
    expect(await generated({ num_logprobs: 5 }, 1)).toBe(2000 / 60 - (2000 % 60) / 60)
    expect(await generated({ num_logprobs: 5 }, 10)).toBe(80)
  })
})

test('readers who stall hold no seat', async () => {
  const alone = await run({}, (engine) => collect(engine, request(3)))
  await run({ max_num_seqs: 1, max_queue: 4 }, async (engine) => {
    const first = await stall(engine, request(3))
    const second = await stall(engine, request(3))
    expect(engine.stats()).toMatchObject({ num_requests_paused: 2, num_queue_places: 3 })
    expect(await collect(engine, request(3))).toEqual(alone)
    expect(await Promise.all([first(), second(), collect(engine, request(3))])).toEqual([alone, alone, alone])
  })
})

test.each([true, false])('their pages are the first that others take (prefix cache: %s)', async (prefix_caching) => {
  const stalled = [1, 2, 3].map((first) => request(first))
  const alone = await run({}, async (engine) => {
    const all = []
    for (const one of [...stalled, request(4, 38)]) all.push(await collect(engine, one))
    return all
  })
  await run({ kv_cache_bytes: 12 * pageBytes, prefix_caching }, async (engine) => {
    const readOn = []
    for (const one of stalled) readOn.push(await stall(engine, one))
    expect(engine.stats()).toMatchObject({ num_pages_used: 6, num_preemptions: 0 })
    // It needs eight pages: two more than are free.
    const events = await collect(engine, request(4, 38))
    expect(engine.stats()).toMatchObject({ num_requests_paused: 3, num_preemptions: 1, num_pages_used: 4 })
    expect([...(await Promise.all(readOn.map((read) => read()))), events]).toEqual(alone)
    expect(engine.stats()).toMatchObject({ num_requests_paused: 0, num_pages_used: 0 })
  })
})

test('pages go from a paused request to one of a higher priority before a running one gives way', async () => {
  await run({ kv_cache_bytes: 10 * pageBytes, max_num_seqs: 1, prefix_caching: false }, async (engine) => {
    const low = { ...request(1), sampling: { ...request(1).sampling, priority: 1 } }
    await stall(engine, low)
    await stall(engine, low)
    expect(await collect(engine, request(4, 38))).toHaveLength(90)
    expect(engine.stats()).toMatchObject({ num_preemptions: 1, num_requests_paused: 2 })
  })
})

test('the choices of a prompt pause each for itself', async () => {
  const alone = await run({}, async (engine) => {
    const all = []
    for (const choice of [0, 1, 2]) {
      all.push(await collect(engine, { ...request(1), sampling: { ...request(1).sampling, choice } }))
    }
    return all
  })
  await run({ max_num_seqs: 2 }, async (engine) => {
    const choices = engine.submitChoices(request(1), 3)
    for (let i = choices.length - 1; i >= 0; i--) {
      await until(engine, (stats) => stats.num_requests_paused === i + 1)
      const all = []
      for await (const { cached_tokens: _, ...event } of choices[i] ?? []) all.push(event)
      expect(all).toEqual(alone[i])
    }
    expect(engine.stats()).toMatchObject({ num_requests_paused: 0, num_pages_used: 0 })
  })
})

test('it can be cancelled, and ends with the engine', async () => {
  const { rest, engine } = await run({}, async (engine) => {
    const controller = new AbortController()
    await stall(engine, request(1), controller.signal)
    const rest = await stall(engine, request(2))
    controller.abort()
    await until(engine, (stats) => stats.num_requests_paused === 1)
    expect(engine.stats().num_pages_used).toBe(2)
    return { rest, engine }
  })
  expect((await rest()).map(({ finish }) => finish)).toEqual(Array(8).fill('none'))
  expect(() => engine.submit(request(1))).toThrow('closed')
})
