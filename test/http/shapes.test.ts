// The exact wire: keys, their order, the order of chunks.

import { expect, test } from 'vitest'
import { bytesOf, EOS, word } from '../generation/fake_model.js'
import { json, startFakeServer } from './fake_server.js'

const chat = { messages: [{ role: 'user', content: 'Hi' }] }
const top = (token: number, ...others: [number, number][]) => ({
  token,
  logprob: -0.25,
  top: [...others.map(([id, logprob]) => ({ token: id, logprob }))],
})

test('a completion', async () => {
  const { post } = await startFakeServer()
  const before = Math.floor(Date.now() / 1000)
  const response = await post('/v1/completions', { model: 'org/fake', prompt: 'Hi' })
  expect(response.headers.get('content-type')).toBe('application/json')
  const text = await response.text()
  const { id, created } = JSON.parse(text)
  expect(id).toMatch(/^cmpl-[0-9a-f]{32}$/)
  expect(created).toBeGreaterThanOrEqual(before)
  expect(text).toBe(
    `{"id":"${id}","object":"text_completion","created":${created},"model":"org/fake","system_fingerprint":"parley-test",` +
      '"choices":[{"text":"Hello world","index":0,"logprobs":null,"finish_reason":"stop"}],' +
      '"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}',
  )
})

test('a chat completion', async () => {
  const { post } = await startFakeServer()
  const text = await (await post('/v1/chat/completions', chat)).text()
  const { id, created } = JSON.parse(text)
  expect(id).toMatch(/^chatcmpl-[0-9a-f]{32}$/)
  expect(text).toBe(
    `{"id":"${id}","object":"chat.completion","created":${created},"model":"org/fake","system_fingerprint":"parley-test",` +
      '"choices":[{"index":0,"message":{"role":"assistant","content":"Hello world","refusal":null},"logprobs":null,"finish_reason":"stop"}],' +
      '"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}',
  )
})

test('a streamed completion: text with the reason on the last chunk, then usage, then the end', async () => {
  const { post } = await startFakeServer()
  const response = await post('/v1/completions', {
    prompt: 'Hi',
    stream: true,
    stream_options: { include_usage: true },
  })
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  expect(response.headers.get('cache-control')).toBe('no-cache')
  const text = await response.text()
  const first = JSON.parse(text.slice(6, text.indexOf('\n\n')))
  const head = `{"id":"${first.id}","object":"text_completion","created":${first.created},"model":"org/fake","system_fingerprint":"parley-test",`
  expect(text).toBe(
    `data: ${head}"choices":[{"text":"Hello","index":0,"logprobs":null,"finish_reason":null}],"usage":null}\n\n` +
      `data: ${head}"choices":[{"text":" world","index":0,"logprobs":null,"finish_reason":null}],"usage":null}\n\n` +
      `data: ${head}"choices":[{"text":"","index":0,"logprobs":null,"finish_reason":"stop"}],"usage":null}\n\n` +
      `data: ${head}"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n` +
      'data: [DONE]\n\n',
  )
})

test('a streamed chat: role, content, a chunk of its own for the reason, usage, the end', async () => {
  const { post } = await startFakeServer()
  const response = await post('/v1/chat/completions', {
    ...chat,
    stream: true,
    stream_options: { include_usage: true },
  })
  const text = await response.text()
  const first = JSON.parse(text.slice(6, text.indexOf('\n\n')))
  const head = `{"id":"${first.id}","object":"chat.completion.chunk","created":${first.created},"model":"org/fake","system_fingerprint":"parley-test",`
  const chunk = (delta: string, reason: string) =>
    `data: ${head}"choices":[{"index":0,"delta":${delta},"logprobs":null,"finish_reason":${reason}}],"usage":null}\n\n`
  expect(text).toBe(
    chunk('{"role":"assistant","content":""}', 'null') +
      chunk('{"content":"Hello"}', 'null') +
      chunk('{"content":" world"}', 'null') +
      chunk('{}', '"stop"') +
      `data: ${head}"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":3,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}\n\n` +
      'data: [DONE]\n\n',
  )
})

test('without include_usage no chunk speaks of usage', async () => {
  const { stream } = await startFakeServer()
  for (const [path, body] of [
    ['/v1/chat/completions', chat],
    ['/v1/completions', { prompt: 'Hi', stream_options: { include_usage: false } }],
  ] as const) {
    for (const chunk of await stream(path, body)) expect(JSON.stringify(chunk)).not.toContain('usage')
  }
})

test('n chats stream: all roles first, each choice with its own end', async () => {
  const { stream } = await startFakeServer()
  const chunks = (await stream('/v1/chat/completions', { ...chat, n: 3 })) as {
    choices: { index: number; delta: object; finish_reason: string | null }[]
  }[]
  expect(chunks.slice(0, 3).map(({ choices }) => choices[0])).toEqual(
    [0, 1, 2].map((index) => ({
      index,
      delta: { role: 'assistant', content: '' },
      logprobs: null,
      finish_reason: null,
    })),
  )
  const ends = chunks.filter(({ choices }) => choices?.[0]?.finish_reason === 'stop')
  expect(ends.map(({ choices }) => choices[0]?.index).sort()).toEqual([0, 1, 2])
  for (const { choices } of ends) expect(choices[0]?.delta).toEqual({})
})

test('legacy log-probabilities: k and the chosen token, true bytes spelled out, offsets in code points', async () => {
  const a = 97
  const [c3, a9] = bytesOf('é') as [number, number]
  const { post, stream } = await startFakeServer({
    script: () => [
      top(word('😀'), [word('😀'), -0.25]),
      top(c3, [a, -0.1]),
      top(a9, [a9, -0.25]),
      top(a, [EOS, -0.2]),
      top(EOS, [EOS, -0.25]),
    ],
  })
  const body = { prompt: 'x', logprobs: 1 }
  const { choices } = await json(await post('/v1/completions', body))
  expect(choices[0]).toEqual({
    text: '😀éa',
    index: 0,
    logprobs: {
      text_offset: [0, 1, 1, 2, 3],
      token_logprobs: [-0.25, -0.25, -0.25, -0.25, -0.25],
      tokens: ['😀', 'bytes:\\xc3', 'bytes:\\xa9', 'a', '<|endoftext|>'],
      top_logprobs: [
        { '😀': -0.25 },
        { a: -0.1, 'bytes:\\xc3': -0.25 },
        { 'bytes:\\xa9': -0.25 },
        { '<|endoftext|>': -0.2, a: -0.25 },
        { '<|endoftext|>': -0.25 },
      ],
    },
    finish_reason: 'stop',
  })
  // The chunks' lists, put together, are the whole answer's.
  const chunks = (await stream('/v1/completions', body)) as { choices?: [{ logprobs: Record<string, unknown[]> }] }[]
  const joined: Record<string, unknown[]> = {}
  for (const chunk of chunks) {
    for (const [key, list] of Object.entries(chunk.choices?.[0].logprobs ?? {}))
      joined[key] = [...(joined[key] ?? []), ...list]
  }
  expect(joined).toEqual(choices[0].logprobs)
})

test('a token that is called like a property of objects is a key like any other', async () => {
  const model = {
    tokenizer: (await import('../generation/fake_model.js')).fakeTokenizer({
      tokenBytes: () => Buffer.from('__proto__'),
    }),
  }
  const { post } = await startFakeServer({ model, script: () => [top(97, [97, -0.25])] })
  const text = await (await post('/v1/completions', { prompt: 'x', max_tokens: 1, logprobs: 0 })).text()
  expect(text).toContain('"top_logprobs":[{"__proto__":-0.25}]')
})

test('chat log-probabilities: true bytes, refusal null, an empty list without top_logprobs', async () => {
  const { post } = await startFakeServer({ script: () => [top(0xf0, [0x9f, -0.5]), top(EOS, [EOS, -0.25])] })
  const body = { ...chat, logprobs: true, top_logprobs: 1, max_tokens: 5 }
  const { choices } = await json(await post('/v1/chat/completions', body))
  const eos = { token: '<|endoftext|>', logprob: -0.25, bytes: bytesOf('<|endoftext|>') }
  expect(choices[0].message.content).toBe('\ufffd')
  expect(choices[0].logprobs).toEqual({
    content: [
      {
        token: '\\xf0',
        logprob: -0.25,
        bytes: [0xf0],
        top_logprobs: [{ token: '\\x9f', logprob: -0.5, bytes: [0x9f] }],
      },
      { ...eos, top_logprobs: [eos] },
    ],
    refusal: null,
  })
  const plain = await startFakeServer({ script: () => [{ token: 97, logprob: -0.25 }, EOS] })
  const answer = await json(await plain.post('/v1/chat/completions', { ...chat, logprobs: true, max_tokens: 1 }))
  expect(plain.engine.seen[0]?.sampling.num_logprobs).toBe(0)
  expect(answer.choices[0].logprobs.content).toEqual([{ token: 'a', logprob: -0.25, bytes: [97], top_logprobs: [] }])
})

test('the list of models, and one model, whose id may hold a slash', async () => {
  const { url } = await startFakeServer()
  const model = { id: 'org/fake', object: 'model', created: 1700000000, owned_by: 'parley', max_model_len: 256 }
  expect(await (await fetch(`${url}/v1/models`)).json()).toEqual({ object: 'list', data: [model] })
  expect(await (await fetch(`${url}/v1/models/org/fake`)).json()).toEqual(model)
  expect(await (await fetch(`${url}/v1/models/org%2Ffake`)).json()).toEqual(model)
})
