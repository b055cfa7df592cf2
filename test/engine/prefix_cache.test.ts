// The prefix cache: pages of ended requests serve later ones with the same beginning, and nobody can tell from the answer.

import { afterAll, describe, expect, test } from 'vitest'
import type { StartOptions } from '../../src/engine/addon.js'
import type { Engine, EngineRequest } from '../../src/engine/engine.js'
import { makeRandomModel, seededRandom, tinySpec } from './random_model.js'
import { collect, collectCached, pageBytes, withEngine } from './tiny_engine.js'

const model = makeRandomModel(tinySpec)
afterAll(() => model.dispose())

const next = seededRandom(5)
const randomTokens = (length: number) => Int32Array.from({ length }, () => Math.floor(next() * tinySpec.vocab_size))
const request = (prompt: Int32Array, sampling: Partial<EngineRequest['sampling']> = {}): EngineRequest => ({
  prompt,
  sampling: { max_tokens: 6, temperature: 1, seed: 3, num_logprobs: 2, ...sampling },
})
const run = <T>(options: Partial<StartOptions>, body: (engine: Engine) => Promise<T>) =>
  withEngine(model, options, body)
const cold = (of: EngineRequest) => run({ prefix_caching: false }, (engine) => collect(engine, of))

describe('a second request with the same prompt', () => {
  test.each([
    [1, 0],
    [16, 0],
    [17, 16],
    [32, 16],
    [33, 32],
    [100, 96],
  ])('of %i tokens is spared %i: whole pages, and never the last token', async (length, spared) => {
    const same = request(randomTokens(length))
    const expected = await cold(same)
    await run({}, async (engine) => {
      expect(await collectCached(engine, same)).toEqual([0, expected])
      expect(await collectCached(engine, same)).toEqual([spared, expected])
      expect(engine.stats()).toMatchObject({
        num_prompt_tokens: 2 * length,
        num_prefix_queries: 2 * length,
        num_prefix_hits: spared,
        num_pages_used: 0,
      })
    })
  })

  test('is spared nothing where the cache is off', async () => {
    const same = request(randomTokens(40))
    await run({ prefix_caching: false }, async (engine) => {
      const [, first] = await collectCached(engine, same)
      expect(await collectCached(engine, same)).toEqual([0, first])
      expect(engine.stats()).toMatchObject({ num_prefix_queries: 0, num_prefix_hits: 0 })
    })
  })
})

test('one that goes on with the answer of another is spared the answer too', async () => {
  const first = request(randomTokens(20), { max_tokens: 30 })
  await run({}, async (engine) => {
    const answer = (await collect(engine, first)).map(({ token }) => token)
    const second = request(Int32Array.from([...first.prompt, ...answer, ...randomTokens(5)]))
    // The last token of an answer is never computed: 49 tokens have keys and values.
    expect(await collectCached(engine, second)).toEqual([48, await cold(second)])
  })
})

test('only the common beginning counts, from the first token on', async () => {
  const prompt = randomTokens(64)
  const other = (position: number) => prompt.with(position, ((prompt[position] as number) + 1) % tinySpec.vocab_size)
  await run({}, async (engine) => {
    await collect(engine, request(prompt))
    for (const [position, spared] of [
      [0, 0],
      [15, 0],
      [16, 16],
      [40, 32],
      [63, 48],
    ] as const) {
      const changed = request(other(position))
      expect(await collectCached(engine, changed)).toEqual([spared, await cold(changed)])
    }
  })
})

test('requests share pages only with those of their salt', async () => {
  const prompt = randomTokens(50)
  await run({}, async (engine) => {
    const spared = async (cache_salt: number) => (await collectCached(engine, request(prompt, { cache_salt })))[0]
    expect(await spared(1)).toBe(0)
    expect(await spared(2)).toBe(0)
    expect(await spared(0)).toBe(0)
    expect(await spared(Number.MAX_SAFE_INTEGER)).toBe(0)
    for (const salt of [1, 2, 0, Number.MAX_SAFE_INTEGER]) expect(await spared(salt)).toBe(48)
  })
})

test('requests that come together with one beginning compute it once', async () => {
  const beginning = randomTokens(80)
  const together = Array.from({ length: 8 }, (_, i) => request(Int32Array.from([...beginning, i, i + 1])))
  const expected = await Promise.all(together.map(cold))
  for (const max_num_batched_tokens of [512, 30]) {
    await run({ max_num_batched_tokens, max_num_seqs: 9 }, async (engine) => {
      const found = await Promise.all(together.map((one) => collectCached(engine, one)))
      expect(found.map(([, events]) => events)).toEqual(expected)
      expect(found.map(([spared]) => spared)).toEqual([0, 80, 80, 80, 80, 80, 80, 80])
    })
  }
})

test('equal requests that run side by side hold the same pages', async () => {
  const same = request(randomTokens(33), { max_tokens: 90 })
  const expected = await cold(same)
  // Four of them need 8 pages each; together they need 7 and one for what is not full.
  await run({ kv_cache_bytes: 14 * pageBytes }, async (engine) => {
    const found = await Promise.all(Array.from({ length: 4 }, () => collect(engine, same)))
    for (const events of found) expect(events).toEqual(expected)
    expect(engine.stats().num_preemptions).toBe(0)
  })
})

test('the pages that were not used for the longest time go first', async () => {
  const [a, b, c] = [randomTokens(49), randomTokens(49), randomTokens(49)].map((prompt) =>
    request(prompt, { max_tokens: 1 }),
  )
  if (!a || !b || !c) throw new Error()
  await run({ kv_cache_bytes: 9 * pageBytes }, async (engine) => {
    const spared = async (one: EngineRequest) => (await collectCached(engine, one))[0]
    expect([await spared(a), await spared(b), await spared(a)]).toEqual([0, 0, 48])
    expect(await spared(c)).toBe(0) // takes four pages: the three blank ones and the end of b
    expect([await spared(a), await spared(b)]).toEqual([48, 32])
  })
})

test('a request whose prompt is scored or pooled is computed whole, and others use its pages', async () => {
  const prompt = randomTokens(70)
  await run({}, async (engine) => {
    const scored = request(prompt, { num_prompt_logprobs: 1 })
    const expected = await cold(scored)
    for (let i = 0; i < 2; i++) expect(await collectCached(engine, scored)).toEqual([0, expected])
    const mean = request(prompt, { max_tokens: 0, pooling: 'mean' })
    expect(await collectCached(engine, mean)).toEqual([0, await cold(mean)])
    const last = request(prompt, { max_tokens: 0, pooling: 'last' })
    expect(await collectCached(engine, last)).toEqual([64, await cold(last)])
    expect(await collectCached(engine, request(prompt))).toEqual([64, await cold(request(prompt))])
    expect(engine.stats()).toMatchObject({ num_prefix_queries: 140, num_prefix_hits: 128 })
  })
})

test('a request that was put back into the queue counts as spared only what others had computed', async () => {
  const requests = Array.from({ length: 6 }, () => request(randomTokens(40), { max_tokens: 60 }))
  const expected = await Promise.all(requests.map(cold))
  await run({ kv_cache_bytes: 16 * pageBytes }, async (engine) => {
    const found = await Promise.all(requests.map((one) => collectCached(engine, one)))
    expect(found).toEqual(expected.map((events) => [0, events]))
    expect(engine.stats().num_preemptions).toBeGreaterThan(0)
    expect(engine.stats()).toMatchObject({ num_prefix_queries: 240, num_prefix_hits: 0, num_prompt_tokens: 240 })
  })
})

test('a cancelled request leaves pages that are right', async () => {
  const long = request(randomTokens(100), { max_tokens: 20 })
  const expected = await cold(long)
  for (let steps = 1; steps < 12; steps += 2) {
    await run({ max_num_batched_tokens: 11 }, async (engine) => {
      const controller = new AbortController()
      const events = engine.submit(long, controller.signal)
      while (engine.stats().num_steps < steps) await new Promise((resolve) => setImmediate(resolve))
      controller.abort()
      for await (const _ of events);
      expect(await collect(engine, long)).toEqual(expected)
    })
  }
})
