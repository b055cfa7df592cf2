// Random schedules: whatever comes, goes and is in each other's way, every request ends once, with the output that it has alone.

import { afterAll, expect, test } from 'vitest'
import type { StartOptions } from '../../src/engine/addon.js'
import type { Engine, EngineRequest, TokenEvent } from '../../src/engine/engine.js'
import { makeRandomModel, seededRandom, tinySpec } from './random_model.js'
import { collect, pageBytes, withEngine } from './tiny_engine.js'

const model = makeRandomModel(tinySpec)
afterAll(() => model.dispose())

const maxModelLen = 96
const numChoices = 3

type Random = { below(limit: number): number; chance(probability: number): boolean }
function randomOf(seed: number): Random {
  const next = seededRandom(seed)
  return { below: (limit) => Math.floor(next() * limit), chance: (probability) => next() < probability }
}

/** Requests of all sorts; many begin alike, and some are the whole of another and more. */
function makeKinds(random: Random): EngineRequest[] {
  const tokens = (length: number) => Array.from({ length }, () => random.below(tinySpec.vocab_size))
  const beginnings = [tokens(16), tokens(40), tokens(64)]
  return Array.from({ length: 24 }, (_, i) => {
    const beginning = random.chance(0.6) ? (beginnings[random.below(3)] ?? []) : []
    const prompt = Int32Array.from([...beginning, ...tokens(1 + random.below(i % 2 ? 20 : 4))])
    return {
      prompt,
      sampling: {
        max_tokens: random.chance(0.1) ? 0 : 1 + random.below(maxModelLen - prompt.length - 1),
        temperature: random.chance(0.3) ? 0 : 1,
        seed: random.below(1e9),
        num_logprobs: 1,
        ...(random.chance(0.2) && { num_prompt_logprobs: random.below(3) }),
        ...(random.chance(0.2) && { repetition_penalty: 1.2 }),
        ...(random.chance(0.2) && { stop_token_ids: Int32Array.from(tokens(3)) }),
      },
    }
  })
}

const kinds = makeKinds(randomOf(1))
/** Each choice of each kind, alone. */
const alone = await withEngine(model, { prefix_caching: false, max_model_len: maxModelLen }, async (engine) => {
  const results: TokenEvent[][][] = []
  for (const { prompt, sampling } of kinds) {
    const choices: TokenEvent[][] = []
    for (let choice = 0; choice < numChoices; choice++) {
      choices.push(await collect(engine, { prompt, sampling: { ...sampling, choice } }))
    }
    results.push(choices)
  }
  return results
})

function randomOptions(random: Random): Partial<StartOptions> {
  return {
    max_model_len: maxModelLen,
    kv_cache_bytes: (6 + random.below(random.chance(0.5) ? 4 : 30)) * pageBytes,
    max_num_seqs: 1 + random.below(8),
    max_num_batched_tokens: 1 + random.below(random.chance(0.5) ? 8 : 100),
    prefix_caching: random.chance(0.7),
    pace_prompts: random.chance(0.5),
    num_threads: 1 + random.below(2),
    guard_memory: random.chance(0.5), // steps are begun before the one in front of them has ended, as on a GPU
  }
}

interface Tally {
  finished: number
  cancelled: number
  /** at the same time, at most */
  paused: number
}

/** Reads a choice to its end, in haste or with rests, or cancels it on the way; every event must be what it is alone. */
async function follow(
  engine: Engine,
  events: AsyncIterable<TokenEvent>,
  expected: TokenEvent[],
  random: Random,
  tally: Tally,
) {
  const restChance = random.chance(0.3) ? 0.2 : 0
  const cancelAfter = random.chance(0.2) ? random.below(expected.length) : Number.POSITIVE_INFINITY
  let seen = 0
  if (cancelAfter > 0) {
    for await (const { cached_tokens: _, ...event } of events) {
      expect(event).toEqual(expected[seen++])
      if (seen === cancelAfter) break
      for (let rest = random.chance(restChance) ? random.below(20) : 0; rest > 0; rest--) {
        await new Promise((resolve) => setImmediate(resolve))
        tally.paused = Math.max(tally.paused, engine.stats().num_requests_paused)
      }
    }
  } else {
    await events[Symbol.asyncIterator]().return?.()
  }
  if (seen === expected.length) tally.finished++
  else {
    expect(seen).toBe(cancelAfter)
    tally.cancelled++
  }
}

async function runSchedule(engine: Engine, random: Random, tally: Tally): Promise<number> {
  const running: Promise<void>[] = []
  const numRequests = 4 + random.below(16)
  for (let i = 0; i < numRequests; i++) {
    const kind = random.below(kinds.length)
    const { prompt, sampling } = kinds[kind] as EngineRequest
    const extra = { priority: random.below(3), cache_salt: random.chance(0.8) ? 0 : random.below(3) }
    const count = random.chance(0.7) ? 1 : 1 + random.below(numChoices)
    const max_unread_bytes = random.chance(0.5) ? 1 : 1000
    const choices = engine.submitChoices({ prompt, sampling: { ...sampling, ...extra }, max_unread_bytes }, count)
    for (const [choice, events] of choices.entries()) {
      running.push(follow(engine, events, alone[kind]?.[choice] ?? [], random, tally))
    }
    if (random.chance(0.4)) await new Promise((resolve) => setImmediate(resolve))
    if (random.chance(0.1)) await running[random.below(running.length)]
  }
  await Promise.all(running)
  return running.length
}

test('every request ends once, with its own output, and leaves no page behind', async () => {
  const tally = { finished: 0, cancelled: 0, paused: 0 }
  const total = { requests: 0, preemptions: 0, hits: 0 }
  for (let seed = 0; seed < 160; seed++) {
    const random = randomOf(1000 + seed)
    await withEngine(model, randomOptions(random), async (engine) => {
      try {
        total.requests += await runSchedule(engine, random, tally)
        await expect
          .poll(() => engine.stats(), { interval: 1 })
          .toMatchObject({
            num_pages_used: 0,
            num_requests_running: 0,
            num_requests_waiting: 0,
            num_requests_paused: 0,
          })
        await collect(engine, kinds[0] as EngineRequest) // compares the idle engine's pages with their holders first
      } catch (error) {
        throw new Error(`schedule ${seed}: ${(error as Error).message}`, { cause: error })
      }
      total.preemptions += engine.stats().num_preemptions
      total.hits += engine.stats().num_prefix_hits
    })
  }
  expect(tally.finished + tally.cancelled).toBe(total.requests)
  expect(total.requests).toBeGreaterThan(1200)
  expect(tally.cancelled).toBeGreaterThan(120)
  expect(tally.paused).toBeGreaterThan(2)
  expect(total.preemptions).toBeGreaterThan(100)
  expect(total.hits).toBeGreaterThan(5000)
})
