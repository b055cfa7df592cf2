// Several choices of one prompt: it is computed once, its pages are shared, and each choice is what it would be alone.

import { afterAll, expect, test } from 'vitest'
import type { StartOptions } from '../../src/engine/addon.js'
import type { Engine, EngineRequest, TokenEvent } from '../../src/engine/engine.js'
import { makeRandomModel, seededRandom, tinySpec } from './random_model.js'
import { collect, pageBytes, withEngine } from './tiny_engine.js'

const model = makeRandomModel(tinySpec)
afterAll(() => model.dispose())

const next = seededRandom(9)
const randomTokens = (length: number) => Int32Array.from({ length }, () => Math.floor(next() * tinySpec.vocab_size))
const run = <T>(options: Partial<StartOptions>, body: (engine: Engine) => Promise<T>) =>
  withEngine(model, options, body)

const request = (length: number, sampling: Partial<EngineRequest['sampling']> = {}): EngineRequest => ({
  prompt: randomTokens(length),
  sampling: { max_tokens: 40, temperature: 1, seed: 3, num_logprobs: 2, ...sampling },
})

const choicesOf = (engine: Engine, of: EngineRequest, count: number) =>
  Promise.all(
    engine.submitChoices(of, count).map(async (events) => {
      const all: TokenEvent[] = []
      for await (const { cached_tokens: _, ...event } of events) all.push(event)
      return all
    }),
  )

const alone = (of: EngineRequest, count: number) =>
  run({ prefix_caching: false }, (engine) =>
    Promise.all(
      Array.from({ length: count }, (_, choice) =>
        collect(engine, { ...of, sampling: { ...of.sampling, choice: choice + (of.sampling.choice ?? 0) } }),
      ),
    ),
  )

// A page that is full, one that is not, a prompt of one token, penalties that count the prompt, a scored prompt, nothing but a prompt.
const requests = [
  request(16),
  request(37),
  request(1),
  request(50, { repetition_penalty: 1.3, frequency_penalty: 0.5, choice: 7 }),
  request(21, { num_prompt_logprobs: 3 }),
  request(33, { num_prompt_logprobs: 1, max_tokens: 0 }),
]
const expected = await Promise.all(requests.map((of) => alone(of, 5)))

test('choices differ', () => {
  for (const choices of expected.slice(0, 5))
    expect(new Set(choices.map((events) => events.at(-1)?.logprob)).size).toBe(5)
})

test.each<[string, Partial<StartOptions>]>([
  ['with the prefix cache', {}],
  ['without it', { prefix_caching: false }],
  ['with prompts in chunks of 5', { max_num_batched_tokens: 5 }],
  ['with fewer seats than choices', { max_num_seqs: 3 }],
  [
    'with fewer seats and in chunks, so that some come while the first one reads',
    { max_num_seqs: 3, max_num_batched_tokens: 5 },
  ],
  ['one after the other', { max_num_seqs: 1, prefix_caching: false }],
  ['with two threads', { num_threads: 2 }],
  ['with so few pages that some give way', { kv_cache_bytes: 9 * pageBytes }],
  ['the same without the prefix cache', { kv_cache_bytes: 9 * pageBytes, prefix_caching: false }],
])('each choice is what it would be alone, %s', async (_name, options) => {
  await run(options, async (engine) => {
    const found = await Promise.all(requests.map((of) => choicesOf(engine, of, 5)))
    expect(found).toEqual(expected)
    expect(engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_running: 0, num_requests_waiting: 0 })
    if (options.kv_cache_bytes) expect(engine.stats().num_preemptions).toBeGreaterThan(0)
  })
})

test('the prompt is computed once and its pages are shared, the last one until two choices write into it', async () => {
  // 100 tokens are 6 pages and a part of a seventh. Apart, 8 choices would need 64 pages; together they need 6 and 2 each.
  const of = request(100, { max_tokens: 25 })
  const each = await alone(of, 8)
  await run({ prefix_caching: false, kv_cache_bytes: 22 * pageBytes, max_num_batched_tokens: 100 }, async (engine) => {
    expect(await choicesOf(engine, of, 8)).toEqual(each)
    expect(engine.stats()).toMatchObject({ num_preemptions: 0, num_steps: 25 })
  })
})

test('when the first choice is cancelled while it reads the prompt, another one reads on', async () => {
  const of = request(100, { max_tokens: 5 })
  const each = await alone(of, 4)
  for (const prefix_caching of [true, false]) {
    await run({ prefix_caching, max_num_batched_tokens: 10 }, async (engine) => {
      const iterators = engine.submitChoices(of, 4).map((events) => events[Symbol.asyncIterator]())
      const rest = iterators.slice(1).map(async (iterator) => {
        const events: TokenEvent[] = []
        for (let result = await iterator.next(); !result.done; result = await iterator.next()) {
          const { cached_tokens: _, ...event } = result.value
          events.push(event)
        }
        return events
      })
      while (engine.stats().num_steps < 2) await new Promise((resolve) => setImmediate(resolve))
      await iterators[0]?.return?.()
      expect(await Promise.all(rest)).toEqual(each.slice(1))
      await expect.poll(() => engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_running: 0 })
    })
  }
})

test('what cannot run is refused whole', async () => {
  await run({}, async (engine) => {
    for (const [sampling, count, message] of [
      [{ max_tokens: 1 }, 0, /choices: expected 1 to 65536, got 0/],
      [{ max_tokens: 1, choice: 65535 }, 2, /choices: expected 1 to 1, got 2/],
      [{ max_tokens: 0, pooling: 'last' }, 2, /pooling: expected one choice, got 2/],
    ] as const) {
      expect(() => engine.submitChoices({ prompt: Int32Array.of(1), sampling }, count)).toThrow(message)
    }
    expect(engine.stats().num_requests_waiting).toBe(0)
  })
})
