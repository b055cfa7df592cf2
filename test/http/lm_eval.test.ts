// What lm-evaluation-harness 0.4.13 sends (its models local-completions and local-chat-completions) and what it reads of the answer:
// one test for each place where a server's scores go wrong. test/e2e/lm_eval/compare.py runs the harness itself.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { EngineRequest, TokenEvent } from '../../src/engine/engine.js'
import { bytesOf, EOS, fakeTokenizer, word } from '../generation/fake_model.js'
import { fixture } from '../models/scratch.js'
import { startFakeServer } from './fake_server.js'
import { startRealServer } from './real_server.js'

interface Answer {
  choices: {
    index: number
    text: string
    logprobs: {
      text_offset: number[]
      token_logprobs: (number | null)[]
      tokens: string[]
      top_logprobs: (Record<string, number> | null)[]
    }
    finish_reason: string
  }[]
}

const headers = { 'content-type': 'application/json', authorization: 'Bearer ' } // without a key in the environment it sends none
const tales = fileURLToPath(new URL('../../models/tales', import.meta.url))

async function ask(url: string, body: object, path = '/v1/completions'): Promise<Answer> {
  const response = await fetch(url + path, { method: 'POST', headers, body: JSON.stringify(body) })
  expect(response.status).toBe(200)
  return (await response.json()) as Answer
}

/** LocalCompletionsAPI._create_payload of a loglikelihood. */
function payload(prompt: unknown, model = 'tales'): object {
  return { model, prompt, temperature: 0, max_tokens: 1, logprobs: 1, seed: 1234, echo: true }
}

/** LocalCompletionsAPI.parse_logprobs: [log-likelihood, is greedy] of each choice. */
function parseLogprobs({ choices }: Answer, ctxlens: number[]): [number, boolean][] {
  return choices
    .toSorted((a, b) => a.index - b.index)
    .map(({ logprobs }, i) => {
      const own = logprobs.token_logprobs.slice(ctxlens[i], -1) as number[]
      const top = logprobs.top_logprobs.slice(ctxlens[i], -1) as Record<string, number>[]
      return [own.reduce((sum, x) => sum + x, 0), own.every((x, j) => x === Math.max(...Object.values(top[j] ?? {})))]
    })
}

/** The first event of a scored prompt: every token with -1 and the given one on top of each. */
function scored({ prompt }: EngineRequest, top: { token: number; logprob: number }[] = []): Partial<TokenEvent> {
  const count = prompt.length - 1
  return {
    prompt: {
      logprobs: new Float32Array(count).fill(-1),
      ranks: new Int32Array(count).fill(1),
      top_tokens: Int32Array.from({ length: count }, (_, i) => top[i]?.token ?? 0),
      top_logprobs: Float32Array.from({ length: count }, (_, i) => top[i]?.logprob ?? -1),
    },
  }
}

test('a batch of token arrays: lists of n + 1, null first, the same floats in both, greedy where the argmax is', async () => {
  const url = await startRealServer(tales)
  // A greedy continuation, one that is none, and both beside others of other lengths.
  const context = Array.from({ length: 20 }, (_, i) => 300 + 17 * i)
  const { choices } = await ask(url, {
    ...{ model: 'tales', prompt: [context], max_tokens: 6, temperature: 0, ignore_eos: true, return_token_ids: true },
  })
  const greedy = (choices[0] as unknown as { token_ids: number[] }).token_ids
  const other = greedy.with(3, ((greedy[3] ?? 0) + 1) % 4000)
  const prompts = [
    [...context, ...greedy],
    [...context, ...other],
    context.slice(0, 3),
    [0, 500], // the empty context: the end-of-text token stands for it
  ]
  const ctxlens = [20, 20, 2, 1]
  const answer = await ask(url, payload(prompts))
  expect(answer.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3])
  for (const [i, { logprobs }] of answer.choices.entries()) {
    for (const list of Object.values(logprobs)) expect(list).toHaveLength((prompts[i]?.length ?? 0) + 1)
    expect([logprobs.token_logprobs[0], logprobs.top_logprobs[0]]).toEqual([null, null])
    for (const [j, own] of logprobs.token_logprobs.entries()) {
      if (own === null) continue
      expect(own).toBeLessThanOrEqual(0)
      const top = logprobs.top_logprobs[j] ?? {}
      expect(top[logprobs.tokens[j] ?? '']).toBe(own)
      expect(Object.keys(top).length).toBeLessThanOrEqual(2)
    }
  }
  const parsed = parseLogprobs(answer, ctxlens)
  expect(parsed.map(([, isGreedy]) => isGreedy).slice(0, 2)).toEqual([true, false])
  // One by one they have the same bits.
  for (const [i, prompt] of prompts.entries()) {
    expect(parseLogprobs(await ask(url, payload([prompt])), [ctxlens[i] ?? 1])).toEqual([parsed[i]])
  }
  // So has text that becomes these ids (tokenized_requests=False).
  const text = 'A king had three sons.'
  const ids = (
    (await ask(url, { prompt: text, add_special_tokens: false }, '/tokenize')) as unknown as { tokens: number[] }
  ).tokens
  expect((await ask(url, payload(text))).choices[0]?.logprobs).toEqual(
    (await ask(url, payload([ids]))).choices[0]?.logprobs,
  )
})

test('the generated token is there even if it is the end', async () => {
  const { url } = await startFakeServer({ script: (request) => [{ token: EOS, ...scored(request) }] })
  const { choices } = await ask(url, payload([bytesOf('abc')], 'org/fake'))
  expect(choices[0]).toMatchObject({ text: 'abc', finish_reason: 'stop' })
  expect(choices[0]?.logprobs.tokens).toEqual(['a', 'b', 'c', '<|endoftext|>'])
  expect(choices[0]?.logprobs.token_logprobs).toHaveLength(4)
})

test('no -Infinity and no NaN: -9999', async () => {
  const script = (request: EngineRequest) => {
    const event = scored(request)
    event.prompt?.logprobs.fill(Number.NEGATIVE_INFINITY)
    return [{ token: EOS, logprob: -1, ...event }]
  }
  const { url } = await startFakeServer({ script })
  const { choices } = await ask(url, payload([bytesOf('ab')], 'org/fake'))
  expect(choices[0]?.logprobs.token_logprobs).toEqual([null, -9999, -1])
  expect(choices[0]?.logprobs.top_logprobs[1]).toEqual({ b: -9999, '\0': -1 })
})

test('strings that collide keep the larger value, and a tie is greedy', async () => {
  const top = [
    { token: 0xc3, logprob: -0.5 }, // the token itself has -1: the argmax is another of the same name
    { token: 97, logprob: -1 }, // as probable as the token itself
  ]
  const { url } = await startFakeServer({ script: (request) => [{ token: EOS, logprob: -1, ...scored(request, top) }] })
  const answer = await ask(url, payload([[97, 0xc3, 98]], 'org/fake'))
  expect(answer.choices[0]?.logprobs.top_logprobs).toEqual([
    null,
    { 'bytes:\\xc3': -0.5 },
    { a: -1, b: -1 },
    { '<|endoftext|>': -1 },
  ])
  expect(parseLogprobs(answer, [1])).toEqual([[-2, false]])
  expect(parseLogprobs(answer, [2])).toEqual([[-1, true]])
})

test('offsets are code points of the echoed text', async () => {
  const url = await startRealServer(tales)
  const text = 'One 👩‍🚀 said “Voilà” 😀 and left.'
  const { choices } = await ask(url, payload(text))
  const characters = [...(choices[0]?.text ?? '')]
  expect(characters.slice(0, [...text].length).join('')).toBe(text)
  for (const [i, token] of (choices[0]?.logprobs.tokens ?? []).entries()) {
    if (token.startsWith('bytes:')) continue
    const offset = choices[0]?.logprobs.text_offset[i] ?? -1
    expect(characters.slice(offset, offset + [...token].length).join('')).toBe(token)
  }
})

test('token arrays are taken as they are; text gets BOS unless add_special_tokens says no', async () => {
  const tokenizer = fakeTokenizer()
  const { encode } = tokenizer
  tokenizer.encode = (text, options) => [...(options?.addSpecialTokens ? [EOS] : []), ...encode(text, options)]
  const script = (request: EngineRequest) => [{ token: EOS, logprob: -1, ...scored(request) }]
  const { url, engine } = await startFakeServer({ script, model: { tokenizer } })
  await ask(url, payload([bytesOf('ab'), bytesOf('c')], 'org/fake'))
  await ask(url, payload('ab', 'org/fake'))
  await ask(url, { ...payload('ab', 'org/fake'), add_special_tokens: false })
  expect(engine.seen.map(({ prompt }) => [...prompt])).toEqual([[97, 98], [99], [EOS, 97, 98], [97, 98]])
  // Remote tokenization would leave BOS out in silence, so such a model does not offer it.
  expect((await fetch(`${url}/tokenizer_info`)).status).toBe(404)
})

test('max_length=n_ctx+2: windows of n_ctx + 1 tokens, and the lists are as long as ever', async () => {
  const url = await startRealServer(tales, { max_model_len: 64 })
  const roomy = await startRealServer(tales, { max_model_len: 128 })
  const window = Array.from({ length: 65 }, (_, i) => 300 + 31 * i)
  const answer = await ask(url, payload([window]))
  for (const list of Object.values(answer.choices[0]?.logprobs ?? {})) expect(list).toHaveLength(66)
  // With room the numbers are the same: all that the harness reads.
  const expected = parseLogprobs(await ask(roomy, payload([window])), [1])
  expect(parseLogprobs(answer, [1])).toEqual(expected)
})

test('rows behind the tokenizer’s end are in the softmax: transformers’ log-probabilities', async () => {
  const golden: {
    vocab_size: number
    num_sampled_ids: number
    prompts: { prompt: number[]; greedy: number[]; logprobs: number[] }[]
  } = JSON.parse(readFileSync(new URL('../models/goldens/neox-no-attention-bias.json', import.meta.url), 'utf8'))
  expect(golden.vocab_size).toBeGreaterThan(golden.num_sampled_ids)
  const url = await startRealServer(fixture('neox-no-attention-bias'))
  const prompts = golden.prompts.filter(({ prompt }) => prompt.length < 100)
  const { choices } = await ask(
    url,
    payload(
      prompts.map(({ prompt, greedy }) => [...prompt, ...greedy]),
      'neox-no-attention-bias',
    ),
  )
  for (const [i, { prompt, logprobs }] of prompts.entries()) {
    const found = choices[i]?.logprobs.token_logprobs.slice(prompt.length, -1) as number[]
    expect(found).toHaveLength(logprobs.length)
    for (const [j, logprob] of logprobs.entries()) expect(Math.abs((found[j] ?? 0) - logprob)).toBeLessThan(1e-4)
  }
})

test('temperature, penalties and bias change nothing of the log-probabilities', async () => {
  const url = await startRealServer(tales)
  const prompt = [Array.from({ length: 9 }, (_, i) => 300 + 17 * i)]
  const more = { temperature: 1.5, presence_penalty: 2, repetition_penalty: 2, logit_bias: { 317: -100 }, top_k: 1 }
  const [plain, changed] = [await ask(url, payload(prompt)), await ask(url, { ...payload(prompt), ...more })]
  expect(parseLogprobs(changed, [1])).toEqual(parseLogprobs(plain, [1]))
})

test('generate_until: no stops, more than four, keys that nobody knows; EOS ends the text by itself', async () => {
  const { url, engine } = await startFakeServer({ script: () => [word('Hello'), word(' world'), EOS] })
  const body = {
    prompt: [bytesOf('a'), bytesOf('bc')],
    model: 'org/fake',
    max_tokens: 256 - 2,
    temperature: 0,
    seed: 1234,
  }
  for (const stop of [[], ['\n', '\n\n', 'Q:', 'Question:', '</s>', '<|im_end|>', '<|endoftext|>']]) {
    const { choices } = await ask(url, { ...body, stop, do_sample: false, num_beams: 1, some_task_option: { a: [1] } })
    expect(choices.map(({ index, text }) => [index, text])).toEqual([
      [0, 'Hello world'],
      [1, 'Hello world'],
    ])
  }
  expect((await ask(url, { ...body, stop: ['lo'] })).choices.map(({ text }) => text)).toEqual(['Hel', 'Hel'])
  const chat = {
    messages: [{ role: 'user', content: 'a' }],
    model: 'org/fake',
    max_tokens: 200,
    temperature: 0,
    stop: [],
    seed: 1234,
  }
  expect(await ask(url, chat, '/v1/chat/completions')).toMatchObject({
    choices: [{ message: { content: 'Hello world' } }],
  })
  for (const { sampling } of engine.seen) expect(sampling).toMatchObject({ temperature: 0, seed: 1234 })
})

test('the gguf client: no model, text, logprobs 10', async () => {
  const url = await startRealServer(tales)
  const { choices } = await ask(url, { prompt: 'A king had', logprobs: 10, temperature: 0, max_tokens: 1, echo: true })
  const { tokens, top_logprobs, text_offset } = choices[0]?.logprobs ?? {
    tokens: [],
    top_logprobs: [],
    text_offset: [],
  }
  expect(tokens.slice(0, -1).join('')).toBe('A king had')
  expect(text_offset[0]).toBe(0)
  for (const [i, top] of top_logprobs.entries()) {
    if (i > 0) expect(Object.keys(top ?? {}).length).toBeGreaterThanOrEqual(10)
  }
})
