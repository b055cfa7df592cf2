// The engine with several ranks: requests beside each other, and a rank that stops.

import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { StartOptions } from '../../src/engine/addon.js'
import { type Engine, EngineFailure, type EngineRequest, type TokenEvent } from '../../src/engine/engine.js'
import { makeRandomModel, neoxSpec, seededRandom } from './random_model.js'
import { collect, withEngine } from './tiny_engine.js'

// Nothing of it divides by 2 or 3 but the heads.
const spec = { ...neoxSpec({ vocab: 101, hidden: 40, layers: 2, heads: 5, positions: 128 }), intermediate_size: 77 }
let model: ReturnType<typeof makeRandomModel>
beforeAll(() => {
  model = makeRandomModel(spec)
})
afterAll(() => model.dispose())

const next = seededRandom(5)
const tokens = (length: number) => Int32Array.from({ length }, () => Math.floor(next() * spec.vocab_size))
const requests: EngineRequest[] = [
  { prompt: tokens(1), sampling: { max_tokens: 20, temperature: 0, num_logprobs: 4 } },
  { prompt: tokens(37), sampling: { max_tokens: 12, seed: 3, top_p: 0.9, num_logprobs: 2, num_prompt_logprobs: 3 } },
  { prompt: tokens(60), sampling: { max_tokens: 8, seed: 4, repetition_penalty: 1.3, num_logprobs: 0 } },
  { prompt: tokens(50), sampling: { max_tokens: 0, pooling: 'mean' } },
  { prompt: tokens(16), sampling: { max_tokens: 30, seed: 5, top_k: 9, num_logprobs: 1 } },
]
const run = (changed: Partial<StartOptions>, body: (engine: Engine) => Promise<TokenEvent[][]>) =>
  withEngine(model, changed, body)
const inTurn = async (engine: Engine) => {
  const results: TokenEvent[][] = []
  for (const request of requests) results.push(await collect(engine, request))
  return results
}
const together = (engine: Engine) => Promise.all(requests.map((request) => collect(engine, request)))

describe.each([2, 3, 5])('%i ranks', (tensor_parallel_size) => {
  test('a request has the bits alone that it has beside others, in pieces, and with more threads', async () => {
    const alone = await run({ tensor_parallel_size }, inTurn)
    expect(await run({ tensor_parallel_size }, together)).toEqual(alone)
    expect(await run({ tensor_parallel_size, max_num_batched_tokens: 7, num_threads: 7 }, together)).toEqual(alone)
  })

  test('tokens are those of one rank', async () => {
    const chosen = (events: TokenEvent[][]) =>
      events.map((request) => request.map(({ token, finish }) => [token, finish]))
    expect(chosen(await run({ tensor_parallel_size }, together))).toEqual(chosen(await run({}, inTurn)))
  })
})

test('a rank that stops ends what runs with its reason, and the engine takes nothing more', async () => {
  const options = { tensor_parallel_size: 2, rank_stops_in_step: 4, rank_stopped_after_ms: 160 }
  await withEngine(model, options, async (engine) => {
    const reason = 'rank 1 of 2 has stopped: it has not moved for 160 ms while the others waited for it'
    const events: TokenEvent[] = []
    const running = async () => {
      for await (const event of engine.submit({ prompt: tokens(3), sampling: { max_tokens: 20 } })) events.push(event)
    }
    await expect(running()).rejects.toThrow(new EngineFailure(reason))
    expect(events).toHaveLength(3)
    expect(engine.stats()).toMatchObject({ num_stopped_ranks: 1, num_requests_running: 0, num_pages_used: 0 })
    await expect(running()).rejects.toThrow(new EngineFailure(reason))
  })
})
