// What clients are told when the server is busy, and how they say who goes first.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { QueueTimeout } from '../../src/engine/engine.js'
import { json, startFakeServer } from './fake_server.js'

const messages = [{ role: 'user', content: 'Hi' }]
const requests: [string, object][] = [
  ['/v1/completions', { prompt: ['Hi', 'Ho'], n: 2 }],
  ['/v1/completions', { prompt: 'Hi', stream: true }],
  ['/v1/chat/completions', { messages }],
  ['/v1/chat/completions', { messages, stream: true }],
  ['/v1/responses', { input: 'Hi' }],
]

test('a full queue is 429 with a time to try again, and nothing of the request is queued', async () => {
  const { post, engine } = await startFakeServer()
  engine.queuePlaces = 0
  for (const [path, body] of requests) {
    const response = await post(path, body)
    expect(response.status).toBe(429)
    expect(response.headers.get('retry-after')).toBe('1')
    expect((await json(response)).error).toEqual({
      message: 'The server is busy: its queue is full (0 completions wait). Please try again later.',
      type: 'rate_limit_error',
      param: null,
      code: 'queue_full',
    })
  }
  const response = await post('/v1/messages', { messages, max_tokens: 9 })
  expect([response.status, (await json(response)).error.type]).toEqual([429, 'rate_limit_error'])
  expect(engine.seen).toEqual([])
  engine.queuePlaces = 1 // one place is enough for all prompts and choices of a request
  expect((await post('/v1/completions', { prompt: ['Hi', 'Ho'], n: 2 })).status).toBe(200)
  expect(engine.seen).toHaveLength(4)
})

test('a request that waited too long is 503 with a time to try again, a stream of it too', async () => {
  const { post } = await startFakeServer({ script: () => [new QueueTimeout('late')] })
  for (const [path, body] of requests) {
    const response = await post(path, body)
    expect(response.status).toBe(503)
    expect(response.headers.get('retry-after')).toBe('5')
    expect((await json(response)).error).toMatchObject({ type: 'server_error', code: 'queue_timeout' })
  }
})

test('priority goes down to the engine; 0 where a request does not say', async () => {
  const { post, engine } = await startFakeServer()
  for (const priority of [undefined, -2147483648, 7]) {
    await post('/v1/completions', { prompt: 'Hi', priority })
    await post('/v1/chat/completions', { messages, priority })
    await post('/v1/responses', { input: 'Hi', priority })
  }
  const seen = engine.seen.map(({ sampling }) => sampling.priority)
  expect(seen).toEqual([0, 0, 0, -2147483648, -2147483648, -2147483648, 7, 7, 7])
  const response = await post('/v1/completions', { prompt: 'Hi', priority: 1.5 })
  expect(response.status).toBe(400)
})

test('the lines of a batch come after all others, whatever they say', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'parley-queue-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const { client, engine } = await startFakeServer({ storage: { folder, limit: 1e6 } })
  const line = { custom_id: 'a', method: 'POST', url: '/v1/completions', body: { prompt: 'Hi', priority: -5 } }
  const file = await client.files.create({ file: new File([JSON.stringify(line)], 'in.jsonl'), purpose: 'batch' })
  await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/completions',
    completion_window: '24h',
  })
  await engine.until(({ seen }) => seen.length === 1)
  expect(engine.seen[0]?.sampling.priority).toBe(2147483647)
})
