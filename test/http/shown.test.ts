// What a request asks to see beside the text: token ids, why it ended, usage while it goes on.

import { expect, test } from 'vitest'
import { ASSISTANT, bytesOf, EOS, USER, word } from '../generation/fake_model.js'
import { json, startFakeServer } from './fake_server.js'

const messages = [{ role: 'user', content: 'a' }]
const logprob = (token: number, ...top: number[]) => ({
  token,
  logprob: -0.5,
  top: top.map((id) => ({ token: id, logprob: -0.5 })),
})

interface Chunk {
  choices: [{ token_ids?: number[]; prompt_token_ids?: number[]; finish_reason: string | null; stop_reason?: unknown }]
  prompt_token_ids?: number[]
  usage?: { completion_tokens: number } | null
}

test('return_token_ids: every generated id once, whole and streamed; the prompt’s where they are first of use', async () => {
  const { post, stream } = await startFakeServer({ script: () => [word('Hello'), 0xc3, 0xa9, EOS] })
  const generated = [word('Hello'), 0xc3, 0xa9, EOS]
  const completion = await json(await post('/v1/completions', { prompt: 'xy', return_token_ids: true }))
  expect(completion.choices[0]).toMatchObject({ token_ids: generated, prompt_token_ids: bytesOf('xy') })
  const chat = await json(await post('/v1/chat/completions', { messages, return_token_ids: true }))
  expect(chat).toMatchObject({ prompt_token_ids: [USER, 97, ASSISTANT], choices: [{ token_ids: generated }] })
  for (const [path, body] of [
    ['/v1/completions', { prompt: 'xy', n: 2 }],
    ['/v1/chat/completions', { messages, n: 2 }],
  ] as const) {
    const chunks = ((await stream(path, { ...body, return_token_ids: true })) as Chunk[]).slice(0, -1)
    const ids = (index: number) =>
      chunks
        .filter(({ choices }) => (choices[0] as unknown as { index: number }).index === index)
        .flatMap(({ choices }) => choices[0].token_ids ?? [])
    expect([ids(0), ids(1)]).toEqual([generated, generated])
    const prompts = chunks.flatMap((chunk) => {
      const found = chunk.prompt_token_ids ?? chunk.choices[0].prompt_token_ids
      return found === undefined ? [] : [found]
    })
    expect(prompts).toEqual(path === '/v1/completions' ? [bytesOf('xy'), bytesOf('xy')] : [[USER, 97, ASSISTANT]])
  }
})

test('return_tokens_as_token_ids: names that are never alike', async () => {
  const { post } = await startFakeServer({ script: () => [logprob(0xc3, 0xc3, 97), logprob(EOS, EOS)] })
  const body = { return_tokens_as_token_ids: true }
  const completion = await json(await post('/v1/completions', { ...body, prompt: 'x', logprobs: 1 }))
  expect(completion.choices[0].logprobs).toMatchObject({
    tokens: ['token_id:195', 'token_id:256'],
    top_logprobs: [{ 'token_id:195': -0.5, 'token_id:97': -0.5 }, { 'token_id:256': -0.5 }],
  })
  const chat = await json(await post('/v1/chat/completions', { ...body, messages, logprobs: true, top_logprobs: 2 }))
  expect(chat.choices[0].logprobs.content[0]).toEqual({
    token: 'token_id:195',
    logprob: -0.5,
    bytes: [195],
    top_logprobs: [
      { token: 'token_id:195', logprob: -0.5, bytes: [195] },
      { token: 'token_id:97', logprob: -0.5, bytes: [97] },
    ],
  })
})

test('stop_reason: the string or the id that was asked for, and nothing for the model’s own end', async () => {
  const { post, stream } = await startFakeServer({ script: () => [word('Hello'), word(' STOP'), 98, EOS] })
  const cases: [more: object, reason: unknown, text: string][] = [
    [{ stop: ['STOP', 'x'] }, 'STOP', 'Hello '],
    [{ stop: ['STOP'], include_stop_str_in_output: true }, 'STOP', 'Hello STOP'],
    [{ stop_token_ids: [98] }, 98, 'Hello STOP'],
    [{ stop_token_ids: [98], include_stop_str_in_output: true }, 98, 'Hello STOPb'],
    [{ stop: ['STOP'], min_tokens: 3 }, undefined, 'Hello STOPb'],
    [{}, undefined, 'Hello STOPb'],
    [{ skip_special_tokens: false, include_stop_str_in_output: true }, undefined, 'Hello STOPb<|endoftext|>'],
  ]
  for (const [more, reason, text] of cases) {
    for (const [path, body] of [
      ['/v1/completions', { prompt: 'x' }],
      ['/v1/chat/completions', { messages }],
    ] as const) {
      const { choices } = (await json(await post(path, { ...body, ...more }))) as unknown as Chunk & {
        choices: [{ text?: string; message?: { content: string } }]
      }
      expect([more, choices[0].stop_reason, choices[0].text ?? choices[0].message?.content]).toEqual([
        more,
        reason,
        text,
      ])
      const chunks = (await stream(path, { ...body, ...more })) as Chunk[]
      const last = chunks.findLast(({ choices }) => choices?.[0]?.finish_reason === 'stop')
      expect([more, last?.choices[0].stop_reason]).toEqual([more, reason])
    }
  }
})

test('continuous_usage_stats: each chunk counts the tokens so far', async () => {
  const { stream } = await startFakeServer({ script: () => [word('Hello'), word(' world'), EOS] })
  const stream_options = { include_usage: true, continuous_usage_stats: true }
  const counts = async (path: string, body: object) =>
    ((await stream(path, { ...body, stream_options })) as Chunk[])
      .slice(0, -1)
      .map(({ usage }) => usage?.completion_tokens)
  expect(await counts('/v1/completions', { prompt: 'x' })).toEqual([1, 2, 3, 3])
  expect(await counts('/v1/chat/completions', { messages })).toEqual([0, 1, 2, 3, 3])
})

test('include_obfuscation: chunks of tokens of any length have one size, and the same text', async () => {
  const { post } = await startFakeServer({ script: () => [...bytesOf('aä"\n'), word(' world'), EOS] })
  const chunksOf = async (path: string, body: object): Promise<object[]> => {
    const text = await (await post(path, { ...body, stream: true })).text()
    return [...text.matchAll(/^data: (\{.*)$/gm)].map(([, chunk = '']) => JSON.parse(chunk))
  }
  for (const [path, body] of [
    ['/v1/completions', { prompt: 'x' }],
    ['/v1/chat/completions', { messages }],
    ['/v1/responses', { input: 'x' }],
  ] as const) {
    const filled = await chunksOf(path, { ...body, stream_options: { include_obfuscation: true } })
    const told = filled.filter((chunk) => textOf(chunk) !== '')
    expect(told.map(textOf)).toEqual(['a', 'ä', '"', '\n', ' world'])
    expect(new Set(told.map((chunk) => Buffer.byteLength(JSON.stringify(chunk)))).size).toBe(1)
    const plain = await chunksOf(path, body)
    expect(plain.map(textOf)).toEqual(filled.map(textOf))
    expect(plain.filter((chunk) => 'obfuscation' in chunk)).toEqual([])
  }
})

/** What a chunk of a completion, a chat or a response adds to the text. */
function textOf(chunk: object): string {
  const { choices, delta } = chunk as { choices?: { text?: string; delta?: { content?: string } }[]; delta?: string }
  return choices?.[0]?.text ?? choices?.[0]?.delta?.content ?? delta ?? ''
}

test('truncate_prompt_tokens keeps the end of a prompt; add_special_tokens says what is around it', async () => {
  const { post, engine } = await startFakeServer()
  const prompt = (i: number) => Buffer.from(engine.seen[i]?.prompt ?? []).toString()
  await post('/v1/completions', { prompt: 'abcdef', truncate_prompt_tokens: 2 })
  await post('/v1/completions', { prompt: `${'x'.repeat(5000)}abc`, truncate_prompt_tokens: -1, max_tokens: 253 })
  await post('/v1/completions', { prompt: [97, 98, 99], truncate_prompt_tokens: 1 })
  expect([prompt(0), prompt(1), prompt(2)]).toEqual(['ef', 'abc', 'c'])
})

test('what OpenAI’s specification lets a request say is accepted', async () => {
  const { post, logged } = await startFakeServer()
  const said = {
    ...{ user: 'me', metadata: { a: 'b' }, store: true, service_tier: 'auto', safety_identifier: 'x' },
    ...{ prompt_cache_key: 'k', prompt_cache_retention: '24h' },
  }
  const more = { ...said, verbosity: 'high', modalities: ['text'], reasoning_effort: 'none' }
  for (const [path, body] of [
    ['/v1/completions', { prompt: 'x', ...said }],
    ['/v1/chat/completions', { messages, ...more }],
  ] as const) {
    const response = await post(path, body)
    expect([response.status, await response.json()]).toMatchObject([200, { service_tier: 'default' }])
  }
  expect(JSON.stringify(logged)).not.toContain('safety_identifier')
})
