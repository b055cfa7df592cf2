// The prompt in the answer: echo, log-probabilities of the prompt, max_tokens 0; and which choices are given out.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import OpenAI from 'openai'
import { describe, expect, test } from 'vitest'
import type { Script } from '../../src/engine/fake.js'
import type { CompletionAnswer } from '../../src/http/completions.js'
import type { PromptLogprobs } from '../../src/http/prompt_logprobs.js'
import { bytesOf, EOS, word } from '../generation/fake_model.js'
import { fixture } from '../models/scratch.js'
import { json, startFakeServer } from './fake_server.js'
import { startRealServer } from './real_server.js'

const tales = fileURLToPath(new URL('../../models/tales', import.meta.url))

type Completion = CompletionAnswer & { choices: { prompt_logprobs?: PromptLogprobs }[] }

describe('the bundled model', () => {
  async function start() {
    const url = await startRealServer(tales)
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
    const create = (body: object) =>
      client.completions.create({ model: 'tales', prompt: '', ...body }) as unknown as Promise<Completion>
    return { url, client, create }
  }

  test('echo is the prompt and then what would have come without it', async () => {
    const { create } = await start()
    const body = { prompt: 'Once upon a time 😀 there', max_tokens: 6, seed: 1, logprobs: 2 }
    const plain = await create(body)
    const echoed = await create({ ...body, echo: true })
    expect(echoed.choices[0]?.text).toBe(body.prompt + plain.choices[0]?.text)
    expect(echoed.usage).toEqual(plain.usage)
    const prompt = plain.usage.prompt_tokens
    const [own, all] = [plain.choices[0]?.logprobs, echoed.choices[0]?.logprobs]
    if (!own || !all) throw new Error('no log-probabilities')
    for (const list of Object.values(all)) expect(list).toHaveLength(prompt + 6)
    expect([all.token_logprobs[0], all.top_logprobs[0]]).toEqual([null, null])
    expect(all.token_logprobs.slice(prompt)).toEqual(own.token_logprobs)
    expect(all.tokens.slice(prompt)).toEqual(own.tokens)
    expect(all.top_logprobs.slice(prompt)).toEqual(own.top_logprobs)
    // Offsets are Python's: an emoji is one character, and every token of it has its start.
    const characters = [...body.prompt].length
    expect(all.text_offset.slice(prompt)).toEqual(own.text_offset.map((offset) => offset + characters))
    const text = [...(echoed.choices[0]?.text ?? '')]
    for (const [i, token] of all.tokens.entries()) {
      const offset = all.text_offset[i] ?? -1
      if (token.startsWith('bytes:')) expect(text[offset]).toBe('😀')
      else expect(text.slice(offset, offset + [...token].length).join('')).toBe(token)
    }
    // The prompt's tokens have the bits that they have as a completion.
    const { choices } = await create({ prompt: echoed.choices[0]?.text, max_tokens: 0, echo: true, logprobs: 2 })
    expect(choices[0]?.logprobs).toEqual(all)
    expect(choices[0]).toMatchObject({ text: echoed.choices[0]?.text, finish_reason: 'length' })
  })

  test('a stream is the whole answer in pieces', async () => {
    const { client, create } = await start()
    const body = { model: 'tales', prompt: ['The 😀', 'A king'], max_tokens: 5, seed: 2, logprobs: 1, echo: true, n: 2 }
    const whole = await create(body)
    const parts = whole.choices.map(() => ({
      text: '',
      logprobs: { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] },
    }))
    const firsts: string[] = []
    for await (const { choices } of await client.completions.create({ ...body, stream: true })) {
      const [choice] = choices
      const part = parts[choice?.index ?? -1]
      if (!choice || !part) throw new Error('no choice')
      if (part.text === '') firsts[choice.index] = choice.text
      part.text += choice.text
      for (const [name, list] of Object.entries(part.logprobs)) {
        list.push(...((choice.logprobs?.[name as 'tokens'] ?? []) as never[]))
      }
    }
    expect(parts).toEqual(whole.choices.map(({ text, logprobs }) => ({ text, logprobs })))
    // The first chunk holds the prompt and the first token.
    for (const [i, first] of firsts.entries()) expect(first.startsWith(body.prompt[i >> 1] ?? '?')).toBe(true)
  })

  test('prompt_logprobs: an object of ids for each token, in completions and chats', async () => {
    const { client, create } = await start()
    const { choices } = await create({
      prompt: 'A king had',
      max_tokens: 1,
      logprobs: 1,
      echo: true,
      prompt_logprobs: 3,
    })
    const [choice] = choices
    const all = choice?.prompt_logprobs ?? []
    expect(all).toHaveLength((choice?.logprobs?.tokens.length ?? 0) - 1)
    expect(all[0]).toBe(null)
    for (const [i, entry] of all.entries()) {
      if (entry === null) continue
      const ranks = Object.values(entry)
        .map(({ rank }) => rank)
        .sort((a, b) => a - b)
      expect(ranks.slice(0, 3)).toEqual([1, 2, 3])
      const own = Object.values(entry).find(({ decoded_token }) => decoded_token === choice?.logprobs?.tokens[i])
      expect(own?.logprob).toBe(choice?.logprobs?.token_logprobs[i])
      // Each list has the length that its own parameter asks for.
      expect(Object.keys(choice?.logprobs?.top_logprobs[i] ?? {}).length).toBeLessThanOrEqual(2)
    }
    const chat = (await client.chat.completions.create({
      model: 'tales',
      messages: [{ role: 'user', content: 'A king' }],
      max_tokens: 1,
      ...{ prompt_logprobs: 0, return_token_ids: true },
    })) as unknown as { prompt_logprobs: PromptLogprobs; prompt_token_ids: number[] }
    expect(chat.prompt_logprobs).toHaveLength(chat.prompt_token_ids.length)
    expect(chat.prompt_logprobs.slice(1).map((entry) => Object.keys(entry ?? {}))).toEqual(
      chat.prompt_token_ids.slice(1).map((id) => [String(id)]),
    )
  })

  test('best_of: the choices with the highest log-probability per token', async () => {
    const { create } = await start()
    const body = { prompt: 'The sea', max_tokens: 8, seed: 3, logprobs: 0 }
    const all = await create({ ...body, n: 6 })
    const mean = ({ logprobs }: Completion['choices'][number]) => {
      const found = (logprobs?.token_logprobs ?? []) as number[]
      return found.reduce((sum, x) => sum + x, 0) / found.length
    }
    const best = all.choices.toSorted((a, b) => mean(b) - mean(a)).slice(0, 2)
    const found = await create({ ...body, n: 2, best_of: 6 })
    expect(found.choices.map(({ text }) => text)).toEqual(best.map(({ text }) => text))
    expect(found.choices.map(({ index }) => index)).toEqual([0, 1])
    expect(found.usage).toEqual(all.usage) // what was not chosen was generated too
  })

  test('a prompt that fills the context, and one that is a token longer', async () => {
    const { url } = await start()
    // The server's context is 256 tokens. The numbers are those of the same prompt where there is room.
    const roomy = await startRealServer(tales, { max_model_len: 512 })
    const prompt = Array.from({ length: 257 }, (_, i) => 300 + ((i * 37) % 500))
    const ask = async (base: string, body: object) => {
      const response = await fetch(`${base}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ echo: true, logprobs: 1, temperature: 0, ...body }),
      })
      return [response.status, await response.json()] as [number, Completion]
    }
    for (const [length, max_tokens] of [
      [256, 1],
      [256, 0],
      [257, 1],
      [257, 0],
    ] as const) {
      const [
        ,
        {
          choices: [expected],
        },
      ] = await ask(roomy, { prompt: prompt.slice(0, length), max_tokens })
      const [
        status,
        {
          choices: [found],
          usage,
        },
      ] = await ask(url, { prompt: prompt.slice(0, length), max_tokens })
      expect(status).toBe(200)
      if (!expected?.logprobs || !found?.logprobs) throw new Error('no log-probabilities')
      if (length === 257 && max_tokens === 1) {
        // Behind the longest prompt there is no place for a token; its entry is there, and empty.
        expect(found.logprobs.tokens.at(-1)).toBe('')
        expect(found.logprobs.token_logprobs.at(-1)).toBe(null)
        expect(found.logprobs.top_logprobs.at(-1)).toBe(null)
        expect(usage.completion_tokens).toBe(0)
        for (const list of [...Object.values(expected.logprobs), ...Object.values(found.logprobs)]) {
          expect(list).toHaveLength(258)
          list.pop()
        }
      }
      expect(found.logprobs).toEqual(expected.logprobs)
    }
    for (const more of [{ prompt: [...prompt, 300] }, { prompt, max_tokens: 2 }, { prompt, logprobs: null }]) {
      const [status, body] = await ask(url, { max_tokens: 1, ...more })
      expect([status, body]).toMatchObject([400, { error: { code: 'context_length_exceeded', param: 'prompt' } }])
    }
  })
})

test("use_beam_search: transformers' beams", async () => {
  interface Search {
    model: string
    prompt: number[]
    num_beams: number
    max_tokens: number
    length_penalty: number
    early_stopping: boolean | 'never'
    ends: number[]
    tokens: number[][]
  }
  const { searches }: { searches: Search[] } = JSON.parse(
    readFileSync(new URL('../generation/beam_goldens.json', import.meta.url), 'utf8'),
  )
  const url = await startRealServer(fixture('neox-parallel'), { max_model_len: 64 })
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  const some = searches.filter(
    ({ model, num_beams, prompt }) => model.endsWith('parallel') && num_beams < 7 && prompt.length > 1,
  )
  expect(some.length).toBeGreaterThan(20)
  for (const { prompt, num_beams, ends, tokens, ...search } of some) {
    const { max_tokens, length_penalty, early_stopping } = search
    const answer = (await client.completions.create({
      ...{ model: 'neox-parallel', prompt, max_tokens, n: 1, best_of: num_beams, stop: [] },
      ...{ use_beam_search: true, length_penalty, early_stopping, return_token_ids: true },
      ...{ ignore_eos: true, stop_token_ids: ends },
    })) as unknown as { choices: { token_ids: number[] }[] }
    expect(answer.choices.map(({ token_ids }) => token_ids)).toEqual(tokens.slice(0, 1))
  }
})

/** One line, with log-probabilities of a prompt of two tokens. */
const scored = (numTop: number): Script =>
  function* ({ prompt }) {
    const count = prompt.length - 1
    yield {
      token: word('Hello'),
      logprob: -0.5,
      top: [{ token: word('Hello'), logprob: -0.5 }],
      prompt: {
        logprobs: new Float32Array(count).fill(-2),
        ranks: new Int32Array(count).fill(2),
        top_tokens: new Int32Array(count * numTop).fill(0xc3),
        top_logprobs: new Float32Array(count * numTop).fill(-1),
      },
    }
    yield EOS
  }

test('prompts × n: each choice echoes its own prompt, in the order of the prompts', async () => {
  const { post } = await startFakeServer({ script: scored(0) })
  const answer = await json(
    await post('/v1/completions', { prompt: ['ab', bytesOf('c'), 'd'].slice(0, 2), n: 2, echo: true, logprobs: 0 }),
  )
  expect(answer.choices.map(({ index, text }) => [index, text])).toEqual([
    [0, 'abHello'],
    [1, 'abHello'],
    [2, 'cHello'],
    [3, 'cHello'],
  ])
})

test('token strings that collide: the more probable one’s value stays; token ids never collide', async () => {
  const { post } = await startFakeServer({ script: scored(1) })
  const body = { prompt: [97, 0xc3], echo: true, logprobs: 1, max_tokens: 0 }
  const { choices } = await json(await post('/v1/completions', body))
  // Half of an é, twice: as the token itself with -2 and as the most probable one with -1.
  expect(choices[0].logprobs).toEqual({
    text_offset: [0, 1],
    token_logprobs: [null, -2],
    tokens: ['a', 'bytes:\\xc3'],
    top_logprobs: [null, { 'bytes:\\xc3': -1 }],
  })
  const ids = await json(await post('/v1/completions', { ...body, return_tokens_as_token_ids: true }))
  expect(ids.choices[0].logprobs).toMatchObject({ tokens: ['token_id:97', 'token_id:195'] })
})

test('without logprobs echo is only text, and costs no log-probabilities', async () => {
  const { post, stream, engine } = await startFakeServer()
  const { choices } = await json(await post('/v1/completions', { prompt: 'Hi ', echo: true }))
  expect(choices[0]).toEqual({ text: 'Hi Hello world', index: 0, logprobs: null, finish_reason: 'stop' })
  expect(engine.seen[0]?.sampling).toMatchObject({ num_logprobs: -1, num_prompt_logprobs: -1 })
  const chunks = (await stream('/v1/completions', { prompt: 'Hi ', echo: true, max_tokens: 0 })) as CompletionAnswer[]
  expect(chunks.slice(0, -1).map((chunk) => chunk.choices)).toEqual([
    [{ text: 'Hi ', index: 0, logprobs: null, finish_reason: 'length' }],
  ])
})

test('what does not go together is refused', async () => {
  const { post } = await startFakeServer()
  const cases: [body: object, param: string, message: string][] = [
    [{ n: 3, best_of: 2 }, 'best_of', "'best_of' must be at least 3, the value of 'n', but got 2."],
    [{ best_of: 21 }, 'best_of', "'best_of' must be at most 20, but got 21."],
    [{ best_of: 2, stream: true }, 'stream', "'stream' cannot be used together with a 'best_of' above 'n'."],
    [{ use_beam_search: true, stream: true }, 'stream', "'stream' cannot be used together with 'use_beam_search'."],
    [{ length_penalty: 2 }, 'length_penalty', "'length_penalty' needs 'use_beam_search' to be true."],
    [{ early_stopping: 'never' }, 'early_stopping', "'early_stopping' needs 'use_beam_search' to be true."],
    [{ use_beam_search: true, stop: 'x' }, 'stop', "'stop' cannot be used together with 'use_beam_search'."],
    [
      { prompt_logprobs: 1, stream: true },
      'prompt_logprobs',
      "'prompt_logprobs' cannot be used together with 'stream'.",
    ],
    [{ prompt_logprobs: 21 }, 'prompt_logprobs', "'prompt_logprobs' must be at most 20, but got 21."],
    [{ prompt_logprobs: -1 }, 'prompt_logprobs', "'prompt_logprobs' must be at least 0, but got -1."],
  ]
  for (const [body, param, message] of cases) {
    for (const [path, base] of [
      ['/v1/completions', { prompt: 'x' }],
      ['/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }] }],
    ] as const) {
      const response = await post(path, { ...base, ...body })
      expect([body, response.status, await response.json()]).toMatchObject([body, 400, { error: { message, param } }])
    }
  }
})

test('a request whose own rules leave no token is told so: at once, and after some tokens', async () => {
  const url = await startRealServer(tales)
  const ask = async (body: object) => {
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'The king', max_tokens: 9, ...body }),
    })
    return [response.status, await response.text()] as [number, string]
  }
  const told = '"message":"No token is left to choose: '
  const [status, answer] = await ask({ allowed_token_ids: [0], min_tokens: 2 })
  expect([status, answer]).toEqual([400, expect.stringContaining(told)])
  expect(JSON.parse(answer)).toMatchObject({ error: { code: 'invalid_value', param: null } })
  const { tokens } = (await (
    await fetch(`${url}/tokenize`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: ' king' }),
    })
  ).json()) as { tokens: number[] }
  expect(tokens).toHaveLength(1)
  const later = { allowed_token_ids: tokens, bad_words: [' king king king'] }
  expect(await ask(later)).toEqual([400, expect.stringContaining(told)])
  const [streamed, events] = await ask({ ...later, stream: true })
  expect(streamed).toBe(200)
  expect(events).toContain(told)
  expect(events.endsWith('data: [DONE]\n\n')).toBe(true)
})
