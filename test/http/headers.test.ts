// Headers that clients and browsers read, on good answers and bad ones.

import { expect, test } from 'vitest'
import { originAllowed } from '../../src/http/origin.js'
import { startFakeServer } from './fake_server.js'

test('every answer says its id and its time, and the log has the same id', async () => {
  const { url, post, logged } = await startFakeServer()
  const answers = [
    await post('/v1/completions', { prompt: 'x' }),
    await post('/v1/completions', { prompt: 'x', stream: true }),
    await post('/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }] }),
    await post('/v1/completions', { prompt: 5 }),
    await fetch(`${url}/v1/models`),
    await fetch(`${url}/nothing`),
  ]
  for (const answer of answers) {
    await answer.text()
    expect(answer.headers.get('openai-processing-ms')).toMatch(/^\d+$/)
  }
  const ids = answers.map((answer) => answer.headers.get('x-request-id'))
  expect(new Set(ids).size).toBe(answers.length)
  const lines = logged.filter(({ event }) => event === 'request').map(({ request_id }) => request_id)
  expect(new Set(lines)).toEqual(new Set(ids))
})

test('a server that cannot answer yet says when to try again, in seconds and in milliseconds', async () => {
  const { url } = await startFakeServer({ phase: 'loading' })
  const { status, headers } = await fetch(`${url}/v1/models`)
  expect([status, headers.get('retry-after'), headers.get('retry-after-ms')]).toEqual([503, '1', '1000'])
})

test('which pages may ask', async () => {
  const { state } = await startFakeServer()
  const cases: [allowed: string[], origin: string, host: string, ok: boolean][] = [
    [['localhost'], 'http://localhost:3000', 'x', true],
    [['localhost'], 'http://127.0.0.1:3000', 'x', true],
    [['localhost'], 'http://[::1]:3000', 'x', true],
    [['localhost'], 'http://app.localhost', 'x', true],
    [['localhost'], 'https://example.org', 'x', false],
    [['localhost'], 'https://localhost.example.org', 'x', false],
    [['localhost'], 'https://127.0.0.1.example.org', 'x', false],
    [['localhost'], 'null', 'x', false],
    [['localhost'], 'nonsense', 'x', false],
    // Its own pages, such as /docs.
    [['localhost'], 'https://models.example.org', 'models.example.org', true],
    [['localhost'], 'http://192.168.0.7:8000', '192.168.0.7:8000', true],
    [['localhost'], 'http://[fd00::7]:8000', '[fd00::7]:8000', true],
    // A page of anybody, whose name he lets point at this server.
    [['localhost'], 'http://models.example.org:8000', 'models.example.org:8000', false],
    [['localhost'], 'https://models.example.org', 'models.example.org:8000', false],
    [['https://example.org'], 'https://example.org', 'x', true],
    [['https://example.org'], 'http://example.org', 'x', false],
    [['https://example.org'], 'http://localhost:3000', 'x', false],
    [['*'], 'https://example.org', 'x', true],
    [['*'], 'null', 'x', true],
  ]
  for (const [allowedOrigins, origin, host, ok] of cases)
    expect([allowedOrigins, origin, originAllowed({ ...state, allowedOrigins }, origin, host)]).toEqual([
      allowedOrigins,
      origin,
      ok,
    ])
  const locked = { ...state, apiKey: 'secret' }
  expect(originAllowed(locked, 'http://models.example.org:8000', 'models.example.org:8000')).toBe(true)
})

test('a browser asks first, without a key, and is told what it may send', async () => {
  const { url, engine } = await startFakeServer({ apiKey: 'secret' })
  const ask = (origin: string) =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: {
        origin,
        'access-control-request-method': 'POST',
        'access-control-request-headers': 'authorization,content-type,x-stainless-os',
      },
    })
  const { status, headers } = await ask('http://localhost:3000')
  expect(status).toBe(204)
  expect(headers.get('access-control-allow-origin')).toBe('http://localhost:3000')
  expect(headers.get('vary')).toBe('origin')
  expect(headers.get('access-control-allow-methods')).toContain('POST')
  expect(headers.get('access-control-allow-headers')).toBe('authorization,content-type,x-stainless-os')
  const foreign = await ask('https://example.org')
  expect([foreign.status, foreign.headers.get('access-control-allow-origin')]).toEqual([403, null])
  expect(await foreign.json()).toMatchObject({ error: { code: 'origin_not_allowed', param: null } })
  expect(engine.seen).toEqual([])
})

test('the answer to a page’s request may be read by the page, an error too', async () => {
  const { post } = await startFakeServer()
  const origin = 'http://localhost:3000'
  for (const body of [{ prompt: 'x' }, { prompt: 'x', stream: true }, { prompt: 5 }]) {
    const answer = await post('/v1/completions', body, { headers: { origin } })
    await answer.text()
    expect(answer.headers.get('access-control-allow-origin')).toBe(origin)
    expect(answer.headers.get('access-control-expose-headers')).toContain('x-request-id')
  }
  const foreign = await post('/v1/completions', { prompt: 'x' }, { headers: { origin: 'https://example.org' } })
  expect(foreign.status).toBe(403)
})
