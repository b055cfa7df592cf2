// Who waits, who goes first, and who gives way.

import { setMaxListeners } from 'node:events'
import { afterAll, expect, test } from 'vitest'
import type { StartOptions } from '../../src/engine/addon.js'
import { type Engine, type EngineRequest, QueueTimeout, type TokenEvent } from '../../src/engine/engine.js'
import { makeRandomModel, neoxSpec } from './random_model.js'
import { collect, withEngine } from './tiny_engine.js'

// Large enough that a request takes longer than to send it.
const spec = neoxSpec({ vocab: 97, hidden: 256, layers: 2, heads: 4, positions: 128 })
const pageBytes = 2 * spec.num_layers * spec.hidden_size * 16 * 4
const model = makeRandomModel(spec, { scale: 0.05 })
afterAll(() => model.dispose())
const run = <T>(options: Partial<StartOptions>, body: (engine: Engine) => Promise<T>) =>
  withEngine(model, { kv_cache_bytes: 200 * pageBytes, ...options }, body)

const request = (first: number, sampling: Partial<EngineRequest['sampling']> = {}): EngineRequest => ({
  prompt: Int32Array.from({ length: 20 }, (_, i) => (first + i) % spec.vocab_size),
  sampling: { max_tokens: 20, temperature: 0, num_logprobs: 0, ...sampling },
})

/** The order in which requests end. */
async function orderOfEnds(engine: Engine, requests: EngineRequest[]): Promise<number[]> {
  const order: number[] = []
  await Promise.all(requests.map((one, i) => collect(engine, one).then(() => order.push(i))))
  return order
}

test('one seat: the lower priority number first, within a priority first come, first served', async () => {
  const blocked = Array.from({ length: 10 }, (_, i) => request(i, { priority: -2147483648, max_tokens: 100 }))
  const priorities = [0, 5, -3, 0, 5, -3, 2147483647, -2147483647]
  const requests = priorities.map((priority, i) => request(i, { priority }))
  await run({ max_num_seqs: 1 }, async (engine) => {
    const order = await orderOfEnds(engine, [...blocked, ...requests])
    expect(order.slice(10).map((i) => i - 10)).toEqual([7, 2, 5, 0, 3, 1, 4, 6])
  })
})

test('whoever comes takes the seat of a lower priority, which goes on later to the same end', async () => {
  const low = request(1, { priority: 1, max_tokens: 100 })
  const alone = await run({}, (engine) => collect(engine, low))
  await run({ max_num_seqs: 1 }, async (engine) => {
    const order: string[] = []
    const lows = Array.from({ length: 10 }, async () => {
      const events = await collect(engine, low)
      order.push('low')
      return events
    })
    while (engine.stats().num_generation_tokens === 0) await new Promise((resolve) => setImmediate(resolve))
    expect(await collect(engine, request(2)).finally(() => order.push('high'))).toHaveLength(20)
    for (const events of await Promise.all(lows)) expect(events).toEqual(alone)
    expect(order.at(-1)).toBe('low')
    expect(engine.stats().num_preemptions).toBe(1)
  })
})

test('it takes pages of a lower priority too, and none of its own', async () => {
  const requests = [1, 1, 0, 0].map((priority, i) => request(i, { priority, max_tokens: 60 }))
  const alone = await run({}, async (engine) => {
    const all: TokenEvent[][] = []
    for (const one of requests) all.push(await collect(engine, one))
    return all
  })
  // Each needs five pages in the end.
  await run({ kv_cache_bytes: 11 * pageBytes, prefix_caching: false }, async (engine) => {
    const together = await Promise.all(requests.map((one) => collect(engine, one)))
    expect(together).toEqual(alone)
    expect(engine.stats().num_pages_used).toBe(0)
  })
})

test('nothing gives way where that would not be enough', async () => {
  await run({ max_num_seqs: 3, kv_cache_bytes: 9 * pageBytes, prefix_caching: false }, async (engine) => {
    // Beside one that stays and has two to six pages, two of a lower priority with one page each. What comes then needs eight.
    const stays = collect(engine, request(1, { max_tokens: 70 }))
    const low = { prompt: Int32Array.of(1), sampling: { max_tokens: 15, priority: 1 } }
    const lows = Array.from({ length: 30 }, () => collect(engine, low))
    while (engine.stats().num_generation_tokens < 4) await new Promise((resolve) => setImmediate(resolve))
    const large = collect(engine, { ...request(3, { max_tokens: 5 }), prompt: new Int32Array(120).fill(4) })
    await Promise.all([stays, ...lows, large])
    expect(engine.stats()).toMatchObject({ num_preemptions: 0, num_pages_used: 0 })
  })
})

test('the places in the queue are those of the queue and of free seats, less who waits', async () => {
  await run({ max_num_seqs: 2, max_queue: 3 }, async (engine) => {
    const consistent = () => {
      const { num_queue_places, num_requests_running, num_requests_waiting } = engine.stats()
      expect(num_queue_places).toBeLessThanOrEqual(5 - num_requests_running - num_requests_waiting)
      expect(num_queue_places).toBeGreaterThanOrEqual(3 - num_requests_waiting)
    }
    expect(engine.stats().num_queue_places).toBe(5)
    const controller = new AbortController()
    setMaxListeners(0, controller.signal)
    const long = request(1, { max_tokens: 100 })
    const running = Array.from({ length: 40 }, () => {
      consistent()
      return engine.submit(long, controller.signal)
    })
    expect(engine.stats().num_queue_places).toBeLessThan(0)
    for await (const _ of running[0] as AsyncIterable<TokenEvent>) consistent()
    controller.abort()
    await expect.poll(() => engine.stats().num_queue_places).toBe(5)
  })
})

test('a request that waits too long ends with an error, and one that has begun never does', async () => {
  await run({ max_num_seqs: 1, max_queue_ms: 300 }, async (engine) => {
    const long = request(1, { max_tokens: 100 })
    const results = await Promise.allSettled(Array.from({ length: 40 }, () => collect(engine, long)))
    const failed = results.filter((result) => result.status === 'rejected')
    expect(failed.length).toBeGreaterThan(0)
    expect(failed.length).toBeLessThan(40)
    for (const { reason } of failed) expect(reason).toBeInstanceOf(QueueTimeout)
    for (const result of results) if (result.status === 'fulfilled') expect(result.value).toHaveLength(100)
    expect(engine.stats()).toMatchObject({ num_requests_waiting: 0, num_pages_used: 0 })
  })
})
