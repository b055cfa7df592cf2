// What the engine tells of a prompt: log-probabilities of its tokens, and pooled hidden states.

import { readFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { forwardLogits, type StartOptions } from '../../src/engine/addon.js'
import type { Engine, EngineRequest, PromptLogprobs, TokenEvent } from '../../src/engine/engine.js'
import { makeRandomModel, seededRandom, tinySpec } from './random_model.js'
import * as tiny from './tiny_engine.js'
import { collect, defaults, pageBytes } from './tiny_engine.js'

const model = makeRandomModel(tinySpec)
afterAll(() => model.dispose())

const withEngine = <T>(options: Partial<StartOptions>, body: (engine: Engine) => Promise<T>) =>
  tiny.withEngine(model, options, body)

const next = seededRandom(11)
const randomPrompt = (length: number) => Int32Array.from({ length }, () => Math.floor(next() * tinySpec.vocab_size))

/** Requests that score and requests that do not, together. */
const requests: EngineRequest[] = [1, 17, 33, 2, 60, 16, 40, 15, 90].map((length, i) => ({
  prompt: randomPrompt(length),
  sampling: {
    max_tokens: 1 + (i % 4) * 20,
    temperature: i % 2,
    seed: i,
    num_logprobs: 3,
    ...(i % 3 === 0 ? {} : { num_prompt_logprobs: i % 5 }),
  },
}))

/** A completion's events as the log-probabilities of a prompt would be: the last tokens of it. */
function asPrompt(events: TokenEvent[]): PromptLogprobs {
  return {
    logprobs: Float32Array.from(events, (event) => event.logprob),
    ranks: Int32Array.from(events, (event) => event.rank),
    top_tokens: Int32Array.from(events.flatMap((event) => event.top.map(({ token }) => token))),
    top_logprobs: Float32Array.from(events.flatMap((event) => event.top.map(({ logprob }) => logprob))),
  }
}

/** The entries of the last `count` tokens. */
function lastOf(prompt: PromptLogprobs | undefined, count: number, numTop: number): PromptLogprobs {
  if (!prompt) throw new Error('no log-probabilities of the prompt')
  return {
    logprobs: prompt.logprobs.slice(-count),
    ranks: prompt.ranks.slice(-count),
    top_tokens: prompt.top_tokens.slice(-count * numTop),
    top_logprobs: prompt.top_logprobs.slice(-count * numTop),
  }
}

describe('the log-probabilities of a prompt', async () => {
  const alone = await withEngine({}, async (engine) => {
    const results: TokenEvent[][] = []
    for (const request of requests) results.push(await collect(engine, request))
    return results
  })

  test('come with the first token, one for each token but the first, and only where they are asked for', () => {
    for (const [i, events] of alone.entries()) {
      const { prompt, sampling } = requests[i] as EngineRequest
      const numTop = sampling.num_prompt_logprobs
      expect(events.slice(1).some((event) => event.prompt)).toBe(false)
      if (numTop === undefined) {
        expect(events[0]?.prompt).toBeUndefined()
      } else {
        expect(events[0]?.prompt?.logprobs).toHaveLength(prompt.length - 1)
        expect(events[0]?.prompt?.ranks).toHaveLength(prompt.length - 1)
        expect(events[0]?.prompt?.top_tokens).toHaveLength((prompt.length - 1) * numTop)
      }
    }
  })

  test('are the softmax of the logits, with the rank and the most probable tokens', async () => {
    const prompt = requests[8]?.prompt as Int32Array
    const logits = forwardLogits(model, { ...defaults, max_num_batched_tokens: 64 }, prompt)
    await withEngine({}, async (engine) => {
      const sampling = { max_tokens: 0, num_prompt_logprobs: 4 }
      const [event, ...others] = await collect(engine, { prompt, sampling })
      expect(others).toEqual([])
      expect(event).toMatchObject({ token: -1, finish: 'length', top: [] })
      const scored = event?.prompt as PromptLogprobs
      for (let i = 0; i + 1 < prompt.length; i++) {
        const row = Array.from(logits.subarray(i * tinySpec.vocab_size, (i + 1) * tinySpec.vocab_size))
        const log = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0))
        const target = prompt[i + 1] as number
        expect(Math.abs((scored.logprobs[i] as number) - ((row[target] as number) - log))).toBeLessThan(1e-5)
        expect(scored.ranks[i]).toBe(row.filter((x) => x >= (row[target] as number)).length)
        const order = [...row.keys()].sort((a, b) => (row[b] as number) - (row[a] as number)).slice(0, 4)
        expect([...scored.top_tokens.slice(i * 4, i * 4 + 4)]).toEqual(order)
        const place = order.indexOf(target)
        if (place >= 0) expect(scored.top_logprobs[i * 4 + place]).toBe(scored.logprobs[i])
      }
    })
  })

  test('have the bits that generation reported for the same tokens', async () => {
    await withEngine({ max_num_batched_tokens: 7 }, async (engine) => {
      for (const [i, events] of alone.entries()) {
        const request = requests[i] as EngineRequest
        const prompt = Int32Array.from([...request.prompt, ...events.map(({ token }) => token)])
        const [scored] = await collect(engine, { prompt, sampling: { max_tokens: 0, num_prompt_logprobs: 3 } })
        expect(lastOf(scored?.prompt, events.length, 3)).toEqual(asPrompt(events))
        // Cutting the completion out of the prompt again changes nothing of the prompt's own.
        const own = events[0]?.prompt
        if (own) expect(own.logprobs).toEqual(scored?.prompt?.logprobs.slice(0, request.prompt.length - 1))
      }
    })
  })

  test.each<[string, Partial<StartOptions>]>([
    ['in one batch with strangers', {}],
    ['with two threads', { num_threads: 2 }],
    ['in chunks of 1 token', { max_num_batched_tokens: 1 }],
    ['in chunks of 7 tokens', { max_num_batched_tokens: 7 }],
    ['in chunks of 64 tokens', { max_num_batched_tokens: 64 }],
    ['with one request at a time', { max_num_seqs: 1 }],
    ['with so few pages that requests are preempted', { kv_cache_bytes: 8 * pageBytes }],
  ])('and all else of a request are the same %s', async (_name, options) => {
    await withEngine(options, async (engine) => {
      // Twice, so that a prefix cache would have everything.
      for (let round = 0; round < 2; round++) {
        // Where few of their tokens may wait for the reader, who first sends them all, none is over before the last has come.
        const together = await Promise.all(
          requests.map((request) => collect(engine, { ...request, max_unread_bytes: 1 })),
        )
        for (const [i, events] of together.entries()) expect(events).toEqual(alone[i])
      }
      expect(engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_running: 0, num_requests_waiting: 0 })
      if (options.kv_cache_bytes) expect(engine.stats().num_preemptions).toBeGreaterThan(0)
    })
  })

  test('of a prompt that fills the whole context can be told, and of one token there are none', async () => {
    await withEngine({}, async (engine) => {
      const score = (prompt: Int32Array) =>
        collect(engine, { prompt, sampling: { max_tokens: 0, num_prompt_logprobs: 0 } })
      const [full] = await score(randomPrompt(128))
      expect(full?.prompt?.logprobs).toHaveLength(127)
      expect(full?.prompt?.logprobs.every((logprob) => logprob < 0)).toBe(true)
      // The token behind it needs no place of its own.
      const prompt = randomPrompt(128)
      const next = await collect(engine, { prompt, sampling: { max_tokens: 9, temperature: 0, ignore_eos: true } })
      expect(next).toMatchObject([{ finish: 'length' }])
      expect(next[0]?.token).toBeGreaterThanOrEqual(0)
      const [one] = await score(Int32Array.of(5))
      expect(one).toMatchObject({ token: -1, finish: 'length' })
      expect(one?.prompt?.logprobs).toHaveLength(0)
      expect(() => engine.submit({ prompt: randomPrompt(129), sampling: { max_tokens: 0 } })).toThrow(
        /prompt: expected at most 128 tokens, got 129/,
      )
    })
  })

  test('leave with their request when it is cancelled', async () => {
    await withEngine({ max_num_batched_tokens: 1, max_num_seqs: 1 }, async (engine) => {
      const controller = new AbortController()
      const sampling = { max_tokens: 0, num_prompt_logprobs: 2 }
      const prompt = randomPrompt(100)
      const streams = Array.from({ length: 50 }, () => engine.submit({ prompt, sampling }, controller.signal))
      while (engine.stats().num_steps < 3) await new Promise((resolve) => setImmediate(resolve))
      controller.abort()
      let ended = 0
      for (const events of streams) for await (const _ of events) ended++
      expect(ended).toBeLessThan(50)
      await expect.poll(() => engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_running: 0 })
    })
  })
})

describe('a pooled hidden state', async () => {
  const pool = async (engine: Engine, prompt: Int32Array, pooling: 'mean' | 'last') => {
    const [event, ...others] = await collect(engine, { prompt, sampling: { max_tokens: 0, pooling } })
    expect(others).toEqual([])
    expect(event?.pooled).toHaveLength(tinySpec.hidden_size)
    return event?.pooled as Float32Array
  }
  const prompts = [1, 5, 16, 40, 128].map(randomPrompt)
  const kinds = ['mean', 'last'] as const
  const alone = await withEngine({}, async (engine) => {
    const results: Float32Array[][] = []
    for (const prompt of prompts) results.push([await pool(engine, prompt, 'mean'), await pool(engine, prompt, 'last')])
    return results
  })

  test('of the last token gives the logits with the unembedding', () => {
    const source = model.tensors.find(({ role }) => role === 'unembedding')
    const file = readFileSync(model.files[0] as string)
    const weights = new Float32Array(file.buffer.slice(file.byteOffset + (source?.offset ?? 0)))
    for (const [i, prompt] of prompts.entries()) {
      const logits = forwardLogits(model, { ...defaults, max_num_batched_tokens: 64 }, prompt).slice(
        -tinySpec.vocab_size,
      )
      logits.forEach((logit, token) => {
        const row = weights.subarray(token * tinySpec.hidden_size, (token + 1) * tinySpec.hidden_size)
        const dot = row.reduce((sum, weight, j) => sum + weight * (alone[i]?.[1]?.[j] ?? Number.NaN), 0)
        expect(Math.abs(dot - logit)).toBeLessThan(1e-5)
      })
    }
  })

  test('the mean is that of the last tokens of all the beginnings', async () => {
    await withEngine({}, async (engine) => {
      const prompt = prompts[2] as Int32Array
      const sum = new Float64Array(tinySpec.hidden_size)
      for (let length = 1; length <= prompt.length; length++) {
        const last = await pool(engine, prompt.slice(0, length), 'last')
        last.forEach((x, i) => {
          sum[i] = (sum[i] as number) + x
        })
      }
      expect(alone[2]?.[0]).toEqual(Float32Array.from(sum, (x) => x / prompt.length))
    })
  })

  test.each<[string, Partial<StartOptions>]>([
    ['in one batch with strangers', {}],
    ['with two threads', { num_threads: 2 }],
    ['in chunks of 1 token', { max_num_batched_tokens: 1 }],
    ['in chunks of 7 tokens', { max_num_batched_tokens: 7 }],
    ['with so few pages that requests are preempted', { kv_cache_bytes: 8 * pageBytes }],
  ])('has the same bits %s', async (_name, options) => {
    await withEngine(options, async (engine) => {
      const strangers = requests.map((request) => collect(engine, request))
      for (let round = 0; round < 2; round++) {
        const pooled = await Promise.all(prompts.flatMap((prompt) => kinds.map((kind) => pool(engine, prompt, kind))))
        expect(pooled).toEqual(alone.flat())
      }
      await Promise.all(strangers)
    })
  })

  test('is refused together with a completion', async () => {
    await withEngine({}, async (engine) => {
      expect(() => engine.submit({ prompt: Int32Array.of(1), sampling: { max_tokens: 1, pooling: 'mean' } })).toThrow(
        /pooling: expected max_tokens 0, got 1/,
      )
    })
  })
})
