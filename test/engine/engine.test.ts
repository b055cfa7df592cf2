// The engine in C++: what a request gets must not depend on anything but the request.

import { existsSync, readFileSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { type ModelSource, type StartOptions, startEngine } from '../../src/engine/addon.js'
import {
  type Engine,
  EngineRefusal,
  type EngineRequest,
  NoTokenLeft,
  type TokenEvent,
} from '../../src/engine/engine.js'
import { makeRandomModel, seededRandom, tinySpec } from './random_model.js'
import * as tiny from './tiny_engine.js'
import { collect, defaults, pageBytes } from './tiny_engine.js'

const model = makeRandomModel(tinySpec)
afterAll(() => model.dispose())

const withEngine = <T>(
  options: Partial<StartOptions>,
  body: (engine: Engine) => Promise<T>,
  source: ModelSource = model,
) => tiny.withEngine(source, options, body)

function randomRequest(next: () => number): EngineRequest {
  const length = 1 + Math.floor(next() * 40)
  const prompt = Int32Array.from({ length }, () => Math.floor(next() * tinySpec.vocab_size))
  const temperature = next() < 0.4 ? 0 : 1
  return {
    prompt,
    sampling: {
      max_tokens: 1 + Math.floor(next() * 30),
      temperature,
      top_p: next() < 0.5 ? 1 : 0.9,
      seed: Math.floor(next() * 1e9),
      num_logprobs: 2,
      frequency_penalty: next() < 0.3 ? 0.5 : 0,
    },
  }
}

describe.each(['float32', 'float16', 'bfloat16'] as const)(
  'in %s a request gets the same tokens and the same bits of its log-probabilities',
  async (dtype) => {
    const next = seededRandom(7)
    const requests = Array.from({ length: 32 }, () => randomRequest(next))
    const bytes = dtype === 'float32' ? pageBytes : pageBytes / 2
    const alone = await withEngine({ dtype, prefix_caching: false }, async (engine) => {
      const results: TokenEvent[][] = []
      for (const request of requests) results.push(await collect(engine, request))
      return results
    })

    test('the outputs alone are not trivial', () => {
      const tokens = new Set(alone.flat().map((event) => event.token))
      expect(tokens.size).toBeGreaterThan(20)
      for (const [i, events] of alone.entries()) {
        expect(events).toHaveLength(requests[i]?.sampling.max_tokens ?? 0)
        expect(events.at(-1)?.finish).toBe('length')
        for (const event of events) expect(event.logprob).toBeLessThan(0)
      }
    })

    test.each<[string, Partial<StartOptions>]>([
      ['in one batch with strangers', {}],
      ['with two threads', { num_threads: 2 }],
      ['with prompts cut into chunks of 5 tokens', { max_num_batched_tokens: 5 }],
      ['with one token a step', { max_num_batched_tokens: 1 }],
      ['with prompts read in slices between the tokens of others', { pace_prompts: true }],
      ['without the prefix cache', { prefix_caching: false }],
      ['with steps filled up as for a GPU', { guard_memory: true }],
      ['with at most 3 requests at a time', { max_num_seqs: 3 }],
      ['with so few pages that requests are preempted', { kv_cache_bytes: 9 * bytes, max_model_len: 80 }],
    ])('%s', async (_name, options) => {
      await withEngine({ dtype, ...options }, async (engine) => {
        const together = await Promise.all(requests.map((request) => collect(engine, request)))
        for (const [i, events] of together.entries()) expect(events).toEqual(alone[i])
        expect(engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_running: 0, num_requests_waiting: 0 })
        if (options.kv_cache_bytes) expect(engine.stats().num_preemptions).toBeGreaterThan(0)
        const again = await Promise.all(requests.map((request) => collect(engine, request)))
        expect(again).toEqual(alone) // from the prefix cache, where there is one
      })
    })
  },
)

test('steps that follow each other without waiting compute one for nobody behind a stop token, and none behind the last token', async () => {
  const prompt = Int32Array.of(9, 8, 7)
  const run = (options: Partial<StartOptions>, sampling: EngineRequest['sampling']) =>
    withEngine(options, async (engine) => {
      const events = await collect(engine, { prompt, sampling: { temperature: 1, seed: 3, ...sampling } })
      const [one, next] = [Int32Array.of(1), { max_tokens: 5, temperature: 0 }]
      const after = await collect(engine, { prompt: one, sampling: next }) // behind the step for nobody
      return { events, after, steps: engine.stats().num_steps }
    })
  const { events: free } = await run({}, { max_tokens: 12 })
  const last = free.findIndex(({ token }, i) => i > 2 && free.findIndex((other) => other.token === token) === i)
  const stopped = { max_tokens: 12, stop_token_ids: Int32Array.of(free[last]?.token ?? -1) }
  for (const [sampling, inVain] of [
    [{ max_tokens: 12 }, 0],
    [stopped, 1],
    [{ ...stopped, frequency_penalty: 0.001 }, 0], // the next choice needs to know the last
  ] as const) {
    const waiting = await run({}, sampling)
    const chained = await run({ guard_memory: true }, sampling)
    expect(chained).toEqual({ ...waiting, steps: waiting.steps + inVain })
  }
})

test('steps that follow each other without waiting give a seat on as soon as the others do', async () => {
  const requests = [5, 9, 7, 6, 8, 5].map((max_tokens, i) => ({
    prompt: Int32Array.of(i + 1, 2, 3),
    sampling: { max_tokens, seed: i, ignore_eos: true },
  }))
  const run = (options: Partial<StartOptions>) =>
    withEngine({ max_num_seqs: 2, ...options }, async (engine) => {
      // Both seats are taken until all have come.
      const before = { prompt: Int32Array.of(1), sampling: { max_tokens: 120, ignore_eos: true } }
      const seated = engine.submitChoices(before, 2).map((events) => events[Symbol.asyncIterator]())
      await seated[0]?.next()
      const running = requests.map((request) => collect(engine, request))
      await expect.poll(() => engine.stats().num_requests_waiting, { interval: 0 }).toBe(requests.length)
      const events = await Promise.all(running)
      for (const rest of seated) await rest.return?.()
      return { events, steps: engine.stats().num_steps }
    })
  expect(await run({ guard_memory: true })).toEqual(await run({}))
})

test('a seed names its text: again the same, another seed or choice another', async () => {
  await withEngine({}, async (engine) => {
    const request = (seed: number, choice: number) =>
      collect(engine, { prompt: Int32Array.of(1, 2, 3), sampling: { max_tokens: 20, temperature: 1.5, seed, choice } })
    const tokens = async (seed: number, choice: number) => (await request(seed, choice)).map((event) => event.token)
    const first = await tokens(5, 0)
    expect(await tokens(5, 0)).toEqual(first)
    expect(await tokens(6, 0)).not.toEqual(first)
    expect(await tokens(5, 1)).not.toEqual(first)
  })
})

test('a stop token ends the request with it, unless end-of-text is ignored', async () => {
  await withEngine({}, async (engine) => {
    const prompt = Int32Array.of(9, 8, 7)
    const free = await collect(engine, { prompt, sampling: { max_tokens: 12, temperature: 0 } })
    const stop = free[3] as TokenEvent
    const first = free.findIndex((event) => event.token === stop.token)
    const sampling = { max_tokens: 12, temperature: 0, eos_token_ids: Int32Array.of(stop.token) }
    const stopped = await collect(engine, { prompt, sampling })
    expect(stopped.map((event) => event.token)).toEqual(free.slice(0, first + 1).map((event) => event.token))
    expect(stopped.at(-1)?.finish).toBe('stop')
    expect(await collect(engine, { prompt, sampling: { ...sampling, ignore_eos: true } })).toEqual(free)
  })
})

test("a request's own stop tokens end it even when end-of-text is ignored; before min_tokens neither is chosen", async () => {
  await withEngine({}, async (engine) => {
    const prompt = Int32Array.of(9, 8, 7)
    const tokens = async (sampling: Partial<EngineRequest['sampling']>) =>
      (await collect(engine, { prompt, sampling: { max_tokens: 12, temperature: 0, ...sampling } })).map(
        ({ token }) => token,
      )
    const free = await tokens({})
    const stop_token_ids = Int32Array.of(free[2] as number)
    const first = free.indexOf(free[2] as number)
    expect(await tokens({ stop_token_ids, ignore_eos: true })).toEqual(free.slice(0, first + 1))
    for (const ends of [{ stop_token_ids }, { eos_token_ids: stop_token_ids }]) {
      const late = await tokens({ ...ends, min_tokens: 6 })
      expect(late.slice(0, first)).toEqual(free.slice(0, first))
      expect(late.length).toBeGreaterThan(5)
      expect(late.slice(0, 6)).not.toContain(free[2])
    }
    expect(await tokens({ eos_token_ids: stop_token_ids, ignore_eos: true, min_tokens: 6 })).toEqual(free)
  })
})

test('a bad word never comes, and its beginning alone may', async () => {
  await withEngine({}, async (engine) => {
    const prompt = Int32Array.of(9, 8, 7)
    const tokens = async (words: number[][]) => {
      const bad_word_ids = Int32Array.from(words.flat())
      const bad_word_sizes = Int32Array.from(words, (word) => word.length)
      const sampling = { max_tokens: 30, temperature: 0, bad_word_ids, bad_word_sizes }
      return (await collect(engine, { prompt, sampling })).map(({ token }) => token)
    }
    const [a, b, c, ...rest] = (await tokens([])) as [number, number, number, ...number[]]
    expect(await tokens([[a]])).not.toContain(a)
    const other = rest.find((token) => token !== a && token !== b) as number
    const without = await tokens([[1, 2, 3], [a, b], [other]])
    expect(without[0]).toBe(a)
    expect(without[1]).not.toBe(b)
    expect(without).not.toContain(other)
    without.forEach((token, i) => {
      if (token === a) expect(without[i + 1]).not.toBe(b)
    })
    expect((await tokens([[a, b, c]])).slice(0, 2)).toEqual([a, b])
    expect((await tokens([[a, b, c]]))[2]).not.toBe(c)
    // The prompt is no part of a bad word: its last token and the first generated one may make it.
    expect((await tokens([[7, a]]))[0]).toBe(a)
  })
})

test('rules that forbid every token end that request alone, and say so', async () => {
  // As where a vocabulary is padded: the last ids are not chosen.
  const padded = { ...model, spec: { ...tinySpec, num_sampled_ids: 60 } }
  const all = Int32Array.from({ length: 60 }, (_, id) => id)
  const forbidding: Partial<EngineRequest['sampling']>[] = [
    { bad_word_ids: all, bad_word_sizes: new Int32Array(60).fill(1) },
    { min_tokens: 2, stop_token_ids: all },
    { min_tokens: 2, stop_token_ids: all.slice(0, 30), eos_token_ids: all.slice(20) },
    { min_tokens: 1, eos_token_ids: Int32Array.of(7), allowed_token_ids: Int32Array.of(7, 7, 80) },
  ]
  await tiny.withEngine(padded, {}, async (engine) => {
    const prompt = Int32Array.of(1, 2, 3)
    const free = collect(engine, { prompt, sampling: { max_tokens: 20 } })
    for (const sampling of forbidding) {
      await expect(collect(engine, { prompt, sampling: { max_tokens: 5, ...sampling } })).rejects.toThrow(NoTokenLeft)
    }
    expect(await free).toHaveLength(20)
    // One that is left is enough.
    const [event] = await collect(engine, {
      prompt,
      sampling: { max_tokens: 1, min_tokens: 1, stop_token_ids: all.slice(1) },
    })
    expect(event?.token).toBe(0)
  })
})

test('repetition_penalty counts prompt and completion', async () => {
  await withEngine({}, async (engine) => {
    const run = async (prompt: Int32Array, repetition_penalty: number) =>
      (await collect(engine, { prompt, sampling: { max_tokens: 40, temperature: 0, repetition_penalty } })).map(
        ({ token }) => token,
      )
    const prompt = Int32Array.of(9, 8, 7)
    const free = await run(prompt, 1)
    const penalized = await run(prompt, 1000)
    expect(new Set(free).size).toBeLessThan(30) // greedy text of this model repeats itself
    expect(new Set([...penalized, ...prompt]).size).toBe(43) // nothing twice, as long as any other logit is positive
  })
})

test('a request ends with length when the context is full', async () => {
  await withEngine({ max_model_len: 20 }, async (engine) => {
    const events = await collect(engine, { prompt: new Int32Array(15).fill(3), sampling: { max_tokens: 100 } })
    expect(events).toHaveLength(5)
    expect(events.at(-1)?.finish).toBe('length')
  })
})

test('aborting ends the iteration, frees the pages and leaves the others alone', async () => {
  await withEngine({}, async (engine) => {
    const controller = new AbortController()
    const long = { prompt: Int32Array.of(1, 2, 3), sampling: { max_tokens: 120, temperature: 0 } }
    const expected = await collect(engine, long)
    const other = collect(engine, long)
    let seen = 0
    for await (const _ of engine.submit(long, controller.signal)) if (++seen === 3) controller.abort()
    expect(seen).toBeLessThan(120)
    expect(await other).toEqual(expected)
    await expect.poll(() => engine.stats().num_pages_used).toBe(0)
  })
})

test('leaving the loop early frees the pages', async () => {
  await withEngine({ max_num_seqs: 1 }, async (engine) => {
    // Many, so that a slow reader is not too late for all of them.
    const leave = async () => {
      for await (const _ of engine.submit({ prompt: Int32Array.of(1), sampling: { max_tokens: 120 } })) break
    }
    await Promise.all(Array.from({ length: 50 }, leave))
    await expect.poll(() => engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_running: 0 })
    expect(engine.stats().num_generation_tokens).toBeLessThan(50 * 120)
  })
})

test('closing ends running requests and refuses new ones', async () => {
  const engine = await startEngine(model, defaults)
  const iterator = engine.submit({ prompt: Int32Array.of(1), sampling: { max_tokens: 127 } })[Symbol.asyncIterator]()
  await iterator.next()
  await engine.close()
  let next = await iterator.next()
  while (!next.done) next = await iterator.next()
  expect(() => engine.submit({ prompt: Int32Array.of(1), sampling: { max_tokens: 1 } })).toThrow(EngineRefusal)
})

test('thousands of requests in random order, cancels and preemptions among them, each end once with their own output', async () => {
  const next = seededRandom(42)
  const kinds = Array.from({ length: 12 }, () => randomRequest(next))
  const expected = await withEngine({}, (engine) => Promise.all(kinds.map((request) => collect(engine, request))))
  await withEngine(
    { kv_cache_bytes: 12 * pageBytes, max_model_len: 80, max_num_seqs: 6, max_num_batched_tokens: 23 },
    async (engine) => {
      let finished = 0
      let cancelled = 0
      const one = async () => {
        const kind = Math.floor(next() * kinds.length)
        const full = expected[kind] as TokenEvent[]
        const controller = new AbortController()
        const cancelAfter = next() < 0.25 ? Math.floor(next() * full.length) : Number.POSITIVE_INFINITY
        if (cancelAfter === 0) setImmediate(() => controller.abort())
        let seen = 0
        for await (const { cached_tokens: _, ...event } of engine.submit(
          kinds[kind] as EngineRequest,
          controller.signal,
        )) {
          expect(event).toEqual(full[seen++])
          if (seen === cancelAfter) controller.abort()
        }
        if (controller.signal.aborted) cancelled++
        else if (seen === full.length) finished++
      }
      for (let round = 0; round < 50; round++) await Promise.all(Array.from({ length: 40 }, one))
      expect(finished + cancelled).toBe(2000)
      expect(finished).toBeGreaterThan(1000)
      expect(engine.stats().num_preemptions).toBeGreaterThan(0)
      await expect
        .poll(() => engine.stats())
        .toMatchObject({ num_pages_used: 0, num_requests_running: 0, num_requests_waiting: 0 })
    },
  )
})

describe('what cannot run is refused with what was expected and what came', () => {
  test.each<[string, EngineRequest, RegExp]>([
    [
      'an empty prompt',
      { prompt: new Int32Array(), sampling: { max_tokens: 1 } },
      /prompt: expected at least one token/,
    ],
    [
      'a prompt longer than the context',
      { prompt: new Int32Array(129), sampling: { max_tokens: 1 } },
      /at most 128 tokens, got 129/,
    ],
    [
      'an id outside the vocabulary',
      { prompt: Int32Array.of(97), sampling: { max_tokens: 1 } },
      /ids from 0 to 96, got 97/,
    ],
    ['a negative id', { prompt: Int32Array.of(-1), sampling: { max_tokens: 1 } }, /ids from 0 to 96, got -1/],
    [
      'a temperature out of range',
      { prompt: Int32Array.of(1), sampling: { max_tokens: 1, temperature: -1 } },
      /sampling.temperature: expected a number from 0 to 100, got -1/,
    ],
    [
      'not a number',
      { prompt: Int32Array.of(1), sampling: { max_tokens: 1, top_p: Number.NaN } },
      /sampling.top_p: .*got NaN/,
    ],
    [
      'biases without values',
      { prompt: Int32Array.of(1), sampling: { max_tokens: 1, bias_ids: Int32Array.of(1) } },
      /bias_values: expected 1 numbers, got 0/,
    ],
    [
      'an allowed id outside the vocabulary',
      { prompt: Int32Array.of(1), sampling: { max_tokens: 1, allowed_token_ids: Int32Array.of(97) } },
      /allowed_token_ids: expected token ids from 0 to 96, got 97/,
    ],
    [
      'bad words whose sizes do not fit',
      {
        prompt: Int32Array.of(1),
        sampling: { max_tokens: 1, bad_word_ids: Int32Array.of(1, 2, 3), bad_word_sizes: Int32Array.of(1, 3) },
      },
      /bad_word_ids: expected 4 ids, got 3/,
    ],
    [
      'too many ids to report',
      { prompt: Int32Array.of(1), sampling: { max_tokens: 1, logprob_token_ids: new Int32Array(33) } },
      /logprob_token_ids: expected at most 32 ids, got 33/,
    ],
    [
      'a fraction for an integer',
      { prompt: Int32Array.of(1), sampling: { max_tokens: 1.5 } },
      /sampling.max_tokens: expected an integer/,
    ],
  ])('%s', async (_name, request, message) => {
    await withEngine({}, async (engine) => {
      expect(() => engine.submit(request)).toThrow(message)
      expect(engine.stats()).toMatchObject({ num_pages_used: 0, num_requests_waiting: 0 })
    })
  })

  const broken = (change: (source: ModelSource) => void): ModelSource => {
    const copy = {
      spec: { ...model.spec },
      tensors: model.tensors.map((tensor) => ({ ...tensor })),
      files: [...model.files],
    }
    change(copy)
    return copy
  }
  const tensor = (source: ModelSource, role: string) => {
    const found = source.tensors.find((candidate) => candidate.role === role)
    if (!found) throw new Error(role)
    return found
  }
  test.each<[string, ModelSource, Partial<StartOptions>, RegExp]>([
    [
      'a missing tensor',
      broken((m) => m.tensors.splice(5, 1)),
      {},
      /layer 0 query_weight: expected in the checkpoint, found nothing/,
    ],
    [
      'a tensor twice',
      broken((m) => m.tensors.push({ ...tensor(m, 'embedding') })),
      {},
      /weights.bin: embedding: expected once/,
    ],
    [
      'a wrong shape',
      broken((m) => {
        tensor(m, 'mlp_up_weight').cols = 31
      }),
      {},
      /mlp_up_weight: expected shape \[128, 32\], found \[128, 31\]/,
    ],
    [
      'an offset beyond the file',
      broken((m) => {
        tensor(m, 'unembedding').offset = 1e9
      }),
      {},
      /unembedding: expected \d+ bytes at offset 1000000000, the file has \d+ bytes/,
    ],
    [
      'sizes that overflow',
      broken((m) =>
        Object.assign(tensor(m, 'query_weight'), { group_rows: 2 ** 30, num_groups: 2 ** 30, cols: 2 ** 30 }),
      ),
      {},
      /query_weight: expected shape/,
    ],
    [
      'a missing file',
      broken((m) => {
        m.files[0] = '/nowhere/weights.bin'
      }),
      {},
      /\/nowhere\/weights.bin: cannot open/,
    ],
    [
      'heads that do not divide',
      broken((m) => {
        m.spec.num_kv_heads = 3
      }),
      {},
      /num_kv_heads 3: expected a divisor of num_heads 4/,
    ],
    [
      'more experts for a token than there are',
      broken((m) => {
        Object.assign(m.spec, { num_experts: 2, num_experts_per_tok: 3, moe_intermediate_size: 8 })
      }),
      {},
      /num_experts_per_tok 3: expected 1 to num_experts 2/,
    ],
    [
      'experts of no width',
      broken((m) => {
        Object.assign(m.spec, { num_experts: 2, num_experts_per_tok: 1 })
      }),
      {},
      /moe_intermediate_size: expected the width of the experts/,
    ],
    [
      'a layer without experts that it does not have',
      broken((m) => {
        m.spec.dense_layers = Int32Array.of(0, 2)
      }),
      {},
      /dense_layers: expected layers below 2, got 2/,
    ],
    [
      'an MLP where experts should be',
      broken((m) => {
        Object.assign(m.spec, { num_experts: 2, num_experts_per_tok: 1, moe_intermediate_size: 8 })
      }),
      {},
      /layer 0 mlp_up_weight: expected none in this model, found one/,
    ],
    [
      'no room for one page',
      model,
      { kv_cache_bytes: 100 },
      /KV cache of 100 bytes: expected room for one page of 8192 bytes/,
    ],
  ])('a model with %s', async (_name, source, options, message) => {
    await expect(startEngine(source, { ...defaults, ...options })).rejects.toThrow(message)
  })
})

// With overcommit_memory 1 the system promises any memory, and stops the process when it is used.
const overcommit = '/proc/sys/vm/overcommit_memory'
const promisesAll = !existsSync(overcommit) || readFileSync(overcommit, 'utf8').trim() === '1'

test.skipIf(promisesAll)('memory that is not to be had is refused, and nothing of the model stays', async () => {
  const mappedBytes = () => Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * 4096
  const load = () => startEngine(model, { ...defaults, kv_cache_bytes: 2 ** 45 })
  await expect(load()).rejects.toThrow(/^cannot reserve \d+ bytes of memory: Cannot allocate memory$/)
  const before = mappedBytes()
  for (let i = 0; i < 50; i++) await load().catch(() => {})
  expect(mappedBytes() - before).toBeLessThan(50 * 2 ** 20) // each has weights, and two megabytes beside them
})
