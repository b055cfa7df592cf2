// Rate limits: who is let in, what a request costs, and OpenAI's headers.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI from 'openai'
import { expect, onTestFinished, test } from 'vitest'
import type { EngineRequest } from '../../src/engine/engine.js'
import { duration, RateLimits } from '../../src/http/rate_limits.js'
import { EOS, word } from '../generation/fake_model.js'
import { json, startFakeServer } from './fake_server.js'
import { SocketClient } from './socket_client.js'

/** A server with limits, whose minute goes on when the test says so. */
async function startLimited(requests: number | null, tokens: number | null, more: object = {}) {
  let now = 0
  const server = await startFakeServer({ rateLimits: new RateLimits({ requests, tokens }, () => now), ...more })
  const pass = (ms: number) => {
    now += ms
  }
  return { ...server, pass }
}

function limitsOf({ headers }: Response): Record<string, string> {
  return Object.fromEntries([...headers].filter(([name]) => name.startsWith('x-ratelimit-')))
}

// Two tokens for the prompt, three for "Hello world" and its end.
const body = { prompt: 'Hi', max_tokens: 10 }

test('the headers of OpenAI on every answer; without limits none', async () => {
  const { post, pass, url } = await startLimited(60, 1200)
  const first = await post('/v1/completions', body)
  expect([first.status, limitsOf(first)]).toEqual([
    200,
    {
      'x-ratelimit-limit-requests': '60',
      'x-ratelimit-remaining-requests': '59',
      'x-ratelimit-reset-requests': '1s',
      'x-ratelimit-limit-tokens': '1200',
      // All that it may use; what it did not use is there again at its end.
      'x-ratelimit-remaining-tokens': '1188',
      'x-ratelimit-reset-tokens': '600ms',
    },
  ])
  pass(100)
  const stream = await post('/v1/completions', { ...body, stream: true })
  await stream.text()
  expect(limitsOf(stream)).toMatchObject({
    'x-ratelimit-remaining-requests': '58',
    'x-ratelimit-reset-requests': '1.9s',
    'x-ratelimit-remaining-tokens': '1185',
    'x-ratelimit-reset-tokens': '750ms',
  })
  const free = [
    await fetch(`${url}/v1/models`),
    await post('/tokenize', { prompt: 'x' }),
    await post('/v1/completions', {}),
  ]
  for (const response of free.slice(0, 2)) expect(limitsOf(response)).toEqual({})
  expect(limitsOf(await (await startFakeServer()).post('/v1/completions', body))).toEqual({})
})

test('above a limit: 429 with the time to wait, after which it is let in', async () => {
  const { post, pass, url, engine } = await startLimited(2, null)
  await post('/v1/completions', body)
  await post('/v1/completions', body)
  const refused = await post('/v1/completions', body)
  expect([refused.status, refused.headers.get('retry-after'), refused.headers.get('retry-after-ms')]).toEqual([
    ...[429, '30', '30000'],
  ])
  expect((await json(refused)).error).toEqual({
    message: 'Rate limit reached for requests per minute: limit 2, used 2, requested 1. Please try again in 30s.',
    type: 'requests',
    param: null,
    code: 'rate_limit_exceeded',
  })
  expect(limitsOf(refused)).toEqual({
    'x-ratelimit-limit-requests': '2',
    'x-ratelimit-remaining-requests': '0',
    'x-ratelimit-reset-requests': '1m0s',
  })
  const messages = [{ role: 'user', content: 'Hi' }]
  const anthropic = await post('/v1/messages', { messages, max_tokens: 5 })
  expect([anthropic.status, (await json(anthropic)).error.type]).toEqual([429, 'rate_limit_error'])
  expect(engine.seen).toHaveLength(2)
  pass(29_999)
  expect((await post('/v1/completions', body)).status).toBe(429)
  pass(1)
  // The client of OpenAI waits as it is told, and tries again.
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 1 })
  expect((await client.completions.create({ model: 'org/fake', ...body })).usage?.total_tokens).toBe(5)
})

test('two hundred at once on a limit of ten: ten', async () => {
  const { post, engine } = await startLimited(10, null)
  const statuses = await Promise.all(
    Array.from({ length: 200 }, async () => {
      const response = await post('/v1/completions', body)
      await response.text()
      return response.status
    }),
  )
  expect([statuses.filter((status) => status === 200).length, engine.seen.length]).toEqual([10, 10])
  expect(new Set(statuses)).toEqual(new Set([200, 429]))
})

test('a request keeps all tokens that it may use until it ends, and what it used after that', async () => {
  let go = () => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  const { post, engine } = await startLimited(null, 100, {
    async *script() {
      yield word('Hello')
      await gate
      yield EOS
    },
  })
  const remaining = async () => {
    const response = await post('/v1/completions', { prompt: 'x', max_tokens: 1 })
    await response.text()
    return limitsOf(response)['x-ratelimit-remaining-tokens']
  }
  // 2 + 3 × 20
  const running = post('/v1/completions', { prompt: 'Hi', max_tokens: 20, n: 2, best_of: 3 })
  await engine.until(({ seen }) => seen.length === 3)
  const refused = await post('/v1/completions', { prompt: 'Hi', max_tokens: 37 })
  expect([refused.status, (await json(refused)).error]).toMatchObject([
    429,
    {
      message: 'Rate limit reached for tokens per minute: limit 100, used 62, requested 39. Please try again in 600ms.',
      type: 'tokens',
    },
  ])
  go()
  expect((await json(await running)).usage).toMatchObject({ total_tokens: 8 })
  expect(await remaining()).toBe('90') // 8, and two for the question
})

test('what is refused for another reason, or is about no tokens, costs nothing', async () => {
  const { post, engine, client } = await startLimited(100, 100)
  engine.queuePlaces = 0
  expect((await post('/v1/completions', body)).status).toBe(429)
  engine.queuePlaces = 1
  for (const wrong of [{ prompt: 5 }, { prompt: 'x', max_tokens: 1e6 }, { prompt: 'x', model: 'other' }]) {
    expect((await post('/v1/completions', wrong)).status).toBeGreaterThanOrEqual(400)
  }
  await client.models.list()
  await post('/v1/messages/count_tokens', { messages: [{ role: 'user', content: 'Hi' }] })
  const response = await post('/v1/completions', body)
  expect(limitsOf(response)).toMatchObject({ 'x-ratelimit-remaining-tokens': '88' })
})

test('more than the limit waits until all of it is there, and others pay for what is beyond', async () => {
  const { post, pass } = await startLimited(null, 4)
  expect((await post('/v1/completions', { prompt: 'Hello' })).status).toBe(200) // used 8
  pass(59_999)
  const early = await post('/v1/completions', body)
  expect([early.status, early.headers.get('retry-after-ms')]).toEqual([429, '60001'])
  pass(60_001)
  expect((await post('/v1/completions', body)).status).toBe(200)
})

test('every endpoint that asks the model counts, over WebSockets and in the background too', async () => {
  const { post, url, client } = await startLimited(100, null)
  const messages = [{ role: 'user', content: 'Hi' }]
  const asked: [string, object][] = [
    ['/v1/completions', body],
    ['/v1/chat/completions', { messages }],
    ['/v1/responses', { input: 'Hi' }],
    ['/v1/messages', { messages, max_tokens: 5 }],
    ['/v1/embeddings', { input: 'Hi' }],
    ['/v1/score', { text_1: 'a', text_2: 'b' }],
    ['/v1/rerank', { query: 'a', documents: ['b'] }],
  ]
  let left = 100
  for (const [path, fields] of asked) {
    expect([path, limitsOf(await post(path, fields))['x-ratelimit-remaining-requests']]).toEqual([path, String(--left)])
  }
  const stream = await SocketClient.connect(url, '/v1/stream')
  stream.send({ id: 1, method: 'completions', params: body })
  await stream.until(({ done }) => done)
  const realtime = await SocketClient.connect(url, '/v1/realtime?model=org/fake')
  realtime.send({ type: 'response.create' })
  const events = await realtime.until(({ type }) => type === 'response.done')
  expect(events.find(({ type }) => type === 'rate_limits.updated')).toMatchObject({
    rate_limits: [{ name: 'requests', limit: 100, remaining: 91, reset_seconds: 5.4 }],
  })
  const { id } = await client.responses.create({ model: 'org/fake', input: 'Hi', background: true })
  await expect.poll(async () => (await client.responses.retrieve(id)).status).toBe('completed')
  expect(limitsOf(await post('/v1/completions', body))['x-ratelimit-remaining-requests']).toBe('89')
})

test('tokens of a response of the background count when it ends', async () => {
  let go = () => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  const { post, state, client } = await startLimited(null, 1000, {
    async *script({ sampling }: EngineRequest) {
      if (sampling.max_tokens > 1) await gate
      yield EOS
    },
  })
  const { id } = await client.responses.create({
    model: 'org/fake',
    input: 'Hi',
    max_output_tokens: 16,
    background: true,
  })
  const remaining = async () =>
    limitsOf(await post('/v1/completions', { prompt: 'x', max_tokens: 1 }))['x-ratelimit-remaining-tokens']
  const before = Number(await remaining())
  expect(before).toBeLessThan(1000 - 16)
  go()
  await expect.poll(async () => (await client.responses.retrieve(id)).status).toBe('completed')
  expect(state.inFlight).toBe(0)
  expect(Number(await remaining())).toBe(before - 2 + 15) // 2 for the first question
})

test('the lines of a batch are not limited', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'parley-limits-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const { client } = await startLimited(1, 1, { storage: { folder, limit: 1e6 } })
  const lines = ['a', 'b', 'c'].map((custom_id) =>
    JSON.stringify({ custom_id, method: 'POST', url: '/v1/completions', body }),
  )
  const file = await client.files.create({ file: new File([lines.join('\n')], 'in.jsonl'), purpose: 'batch' })
  const { id } = await client.batches.create({
    ...{ input_file_id: file.id, endpoint: '/v1/completions', completion_window: '24h' },
  })
  await expect.poll(async () => (await client.batches.retrieve(id)).request_counts?.completed).toBe(3)
})

test('times as OpenAI writes them', () => {
  const cases = { 0: '0s', 0.017: '17ms', 1: '1s', 8.64: '8.64s', 60: '1m0s', 119.5: '1m59.5s', 3600: '1h0m0s' }
  for (const [seconds, text] of Object.entries(cases)) expect(duration(Number(seconds))).toBe(text)
})
