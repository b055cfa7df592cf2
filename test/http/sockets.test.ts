// WebSockets: the handshake, the limits, the end; and /v1/stream.

import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { type ClientOptions, WebSocket } from 'ws'
import { EOS, word } from '../generation/fake_model.js'
import { startFakeServer, until } from './fake_server.js'
import { type Frame, SocketClient } from './socket_client.js'

const chat = { messages: [{ role: 'user', content: 'x' }] }
const forever = () => {
  let step = () => {}
  return {
    /** lets a script go on that waits */
    goOn: () => step(),
    script: async function* () {
      for (;;) {
        yield word('Hello')
        await new Promise<void>((resolve) => {
          step = resolve
        })
      }
    },
  }
}
const endless = function* () {
  for (;;) yield word('Hello')
}

/** The answer of HTTP to a handshake that is refused. */
async function refused(url: string, path: string, options: ClientOptions & { protocols?: string[] } = {}) {
  const socket = new WebSocket(url.replace('http', 'ws') + path, options.protocols ?? [], options)
  const response = await new Promise<import('node:http').IncomingMessage>((resolve, reject) => {
    socket.on('unexpected-response', (_, answer) => resolve(answer))
    socket.on('open', () => reject(new Error('it was accepted')))
    socket.on('error', reject)
  })
  let text = ''
  for await (const data of response) text += data
  return { status: response.statusCode, headers: response.headers, body: JSON.parse(text) }
}

/** Chunks without what differs from request to request. */
function same(chunks: Frame[]): Frame[] {
  return chunks.map((chunk) => ({ ...chunk, id: '', created: 0 }))
}

test('/v1/stream: the chunks of SSE, and done', async () => {
  const { url, stream, post } = await startFakeServer()
  const client = await SocketClient.connect(url, '/v1/stream')
  const stream_options = { include_usage: true }
  for (const [method, path, params] of [
    ['chat.completions', '/v1/chat/completions', { ...chat, n: 2, stream_options }],
    ['completions', '/v1/completions', { prompt: ['x', 'y'], stream_options }],
  ] as const) {
    client.send({ id: 7, method, params })
    const frames = await client.until(({ done }) => done)
    expect(frames.every(({ id }) => id === 7)).toBe(true)
    expect(frames.at(-1)).toEqual({ id: 7, done: true })
    const events = (await stream(path, params)).slice(0, -1)
    expect(same(frames.slice(0, -1).map(({ chunk }) => chunk))).toEqual(same(events))
    client.send({ id: 7, method, params: { ...params, stream: false, stream_options: null } })
    const [whole, done] = await client.until((frame) => frame.done)
    expect(done).toEqual({ id: 7, done: true })
    const { stream_options: _, ...rest } = params
    expect(same([whole.chunk])).toEqual(same([await (await post(path, rest)).json()]))
  }
})

test('/v1/stream: many requests, interleaved', async () => {
  const { url, engine } = await startFakeServer({
    script: async function* ({ prompt }) {
      for (const token of prompt) {
        await new Promise((resolve) => setImmediate(resolve))
        yield token
      }
      yield EOS
    },
  })
  const client = await SocketClient.connect(url, '/v1/stream')
  const prompts = Array.from({ length: 100 }, (_, i) => `prompt number ${i}`)
  for (const prompt of prompts) client.send({ id: prompt, method: 'completions', params: { prompt, max_tokens: 50 } })
  const texts = new Map<string, string>()
  const order: string[] = []
  for (let done = 0; done < prompts.length; ) {
    const frame = await client.next()
    expect(frame.error).toBeUndefined()
    if (frame.done) done++
    else texts.set(frame.id, (texts.get(frame.id) ?? '') + frame.chunk.choices[0].text)
    order.push(frame.id)
  }
  expect([...texts]).toEqual(prompts.map((prompt) => [prompt, prompt]))
  expect(order.findIndex((id) => id !== order[0])).toBeLessThan(16)
  expect(engine.seen).toHaveLength(100)
})

test('/v1/stream: mistakes are told, with the error of HTTP, and the connection goes on', async () => {
  const { url, post, logged, engine } = await startFakeServer({ script: endless })
  Object.assign(engine.info, { max_model_len: 1_000_000 })
  const client = await SocketClient.connect(url, '/v1/stream')
  const tell = async (text: string) => {
    client.socket.send(text)
    return client.next()
  }
  for (const params of [
    { prompt: 5 },
    { prompt: 'x', suffix: 'y' },
    { prompt: 'x', model: 'other' },
    'x',
    undefined,
    [],
  ]) {
    const { id, error } = await tell(JSON.stringify({ id: 'a', method: 'completions', params }))
    if (params === undefined) expect(error.message).toBe('The body must be a JSON object, but got nothing.')
    else expect({ error }).toEqual(await (await post('/v1/completions', JSON.stringify(params))).json())
    expect(id).toBe('a')
  }
  const start = { id: 'running', method: 'completions', params: { prompt: 'x', max_tokens: 900_000 }, credit: 1 }
  expect(await tell(JSON.stringify(start))).toMatchObject({ id: 'running', chunk: {} })
  for (const [text, id, code, param, message] of [
    ['{"id": ', null, 'invalid_json', null, 'The message could not be parsed as JSON: it ends too early.'],
    ['', null, 'invalid_json', null, 'The message could not be parsed as JSON: it is empty.'],
    ['7', null, 'invalid_type', null, 'The message must be a JSON object, but got 7.'],
    ['[]', null, 'invalid_type', null, 'The message must be a JSON object, but got an empty array.'],
    ['{}', null, 'missing_required_parameter', 'id', "'id' is missing."],
    ['{"id":1.5}', null, 'invalid_value', 'id', /^'id' must be an integer or a string .* got 1.5\.$/],
    ['{"id":{}}', null, 'invalid_value', 'id', /^'id' must be/],
    [`{"id":"${'x'.repeat(65)}"}`, null, 'invalid_value', 'id', /^'id' must be/],
    ['{"id":1}', 1, 'missing_required_parameter', 'method', /^The message must have 'method', 'cancel' or 'credit'/],
    ['{"id":1,"method":"toString"}', 1, 'invalid_value', 'method', /one of "chat.completions", "completions", but got/],
    ['{"id":1,"method":"completions","credit":0}', 1, 'invalid_value', 'credit', /^'credit' must be an integer from 1/],
    ['{"id":1,"credit":"5"}', 1, 'invalid_value', 'credit', /^'credit' must be/],
    [JSON.stringify(start), null, 'invalid_value', 'id', /"running" runs/],
  ] as const) {
    const frame = await tell(text)
    expect(frame).toMatchObject({ id, error: { type: 'invalid_request_error', code, param } })
    if (typeof message === 'string') expect(frame.error.message).toBe(message)
    else expect(frame.error.message).toMatch(message)
  }
  // Late messages for a request that is over are no mistakes.
  client.send({ id: 'over', cancel: true }, { id: 'over', credit: 5 }, { id: 'running', cancel: true })
  expect(await client.next()).toEqual({ id: 'running', done: true })
  expect(logged.filter(({ error }) => error === 'invalid_json')).toHaveLength(2)
})

test('/v1/stream: an error of the engine ends one request, and no other', async () => {
  const { url } = await startFakeServer({
    script: ({ prompt }) => (prompt[0] === 97 ? [word('Hello'), new Error('boom')] : [word('Hello'), EOS]),
  })
  const client = await SocketClient.connect(url, '/v1/stream')
  client.send({ id: 1, method: 'completions', params: { prompt: 'a' } })
  const frames = await client.until(({ error }) => error)
  expect(frames).toMatchObject([
    { id: 1, chunk: {} },
    { id: 1, error: { code: 'engine_failure', type: 'server_error' } },
  ])
  client.send({ id: 1, method: 'completions', params: { prompt: 'b' } })
  expect((await client.until(({ done }) => done)).length).toBe(3)
})

test('cancel frees the engine at once and is answered by done', async () => {
  const { script } = forever()
  const { url, engine, state, logged } = await startFakeServer({ script })
  const client = await SocketClient.connect(url, '/v1/stream')
  client.send({ id: 1, method: 'completions', params: { prompt: 'x', n: 3, stream_options: { include_usage: true } } })
  await client.next()
  client.send({ id: 1, cancel: true })
  const frames = await client.until(({ done }) => done)
  expect(frames.filter(({ chunk }) => chunk?.usage)).toEqual([])
  await engine.until(({ seen }) => seen.every((request) => request.state === 'cancelled'))
  await until(() => state.inFlight === 0)
  expect(logged.filter(({ event }) => event === 'request')).toMatchObject([
    { method: 'GET', path: '/v1/stream', status: 101 },
    { method: 'WS', path: '/v1/stream', status: 499, completion_tokens: 3 },
  ])
})

test('a connection that ends cancels all that it started, and no more', async () => {
  const { script } = forever()
  const { url, engine, state, logged } = await startFakeServer({ script })
  const [client, other] = [await SocketClient.connect(url, '/v1/stream'), await SocketClient.connect(url, '/v1/stream')]
  other.send({ id: 1, method: 'completions', params: { prompt: 'other' } })
  await other.next()
  for (let id = 0; id < 5; id++) client.send({ id, method: 'completions', params: { prompt: 'x' } })
  for (let id = 0; id < 5; id++) await client.next()
  expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^parley_websockets_open 2$/m)
  client.socket.terminate()
  const states = () => engine.seen.map((request) => request.state)
  await engine.until(() => states().filter((name) => name === 'cancelled').length === 5)
  expect(states()[0]).toBe('running')
  await until(() => state.inFlight === 1)
  expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^parley_websockets_open 1$/m)
  expect(logged).toContainEqual(
    expect.objectContaining({ event: 'websocket', path: '/v1/stream', code: 1006, requests: 5 }),
  )
})

test('credit: so many chunks and no more, for one request and no other', async () => {
  const { url, engine } = await startFakeServer({ script: endless })
  Object.assign(engine.info, { max_model_len: 1_000_000 })
  const client = await SocketClient.connect(url, '/v1/stream')
  const params = { prompt: 'x', max_tokens: 900_000 }
  client.send({ id: 'a', method: 'completions', params, credit: 3 })
  for (let i = 0; i < 3; i++) expect(await client.next()).toMatchObject({ id: 'a', chunk: {} })
  // Another one runs to its end meanwhile.
  client.send({ id: 'b', method: 'completions', params: { prompt: 'x', max_tokens: 2000 } })
  const frames = await client.until(({ done }) => done)
  expect(frames.length).toBe(2001)
  expect(frames.filter(({ id }) => id === 'a')).toEqual([])
  // Nothing was made that nobody may read, but the chunk that waits.
  expect(engine.seen[0]?.num_generated).toBeLessThanOrEqual(5)
  client.send({ id: 'a', credit: 1 }, { id: 'a', credit: 1 })
  for (let i = 0; i < 2; i++) expect(await client.next()).toMatchObject({ id: 'a', chunk: {} })
  client.send({ id: 'a', cancel: true })
  expect(await client.next()).toEqual({ id: 'a', done: true })
})

test('a reader that stops reading stops its own answers, and no other', async () => {
  const { url, engine, state } = await startFakeServer({
    script: function* () {
      for (;;) yield { token: 97, logprob: -1, top: Array.from({ length: 20 }, (_, token) => ({ token, logprob: -2 })) }
    },
  })
  Object.assign(engine.info, { max_model_len: 1_000_000 })
  const params = { prompt: 'x', max_tokens: 500_000, logprobs: 20 }
  const slow = await SocketClient.connect(url, '/v1/stream')
  slow.socket.pause()
  for (let id = 0; id < 10; id++) slow.send({ id, method: 'completions', params })
  const counts = () => engine.seen.map(({ num_generated }) => num_generated).join()
  let last = ''
  while (last === '' || counts() !== last) {
    last = counts()
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const other = await SocketClient.connect(url, '/v1/stream')
  other.send({ id: 1, method: 'completions', params: { ...params, max_tokens: 1000 } })
  await other.until(({ done }) => done)
  expect(counts()).toBe(`${last},1000`)
  slow.socket.terminate()
  await until(() => state.inFlight === 0)
})

test('frames that are no text, too large or too many', async () => {
  const { url, engine } = await startFakeServer({ script: endless })
  Object.assign(engine.info, { max_model_len: 1_000_000 })
  const binary = await SocketClient.connect(url, '/v1/stream')
  binary.socket.send(Buffer.from('{}'))
  expect(await binary.closed).toEqual({ code: 1003, reason: 'Messages must be JSON texts.' })
  const large = await SocketClient.connect(url, '/v1/stream')
  large.socket.send(' '.repeat(8 * 1024 * 1024 + 1))
  expect(await large.closed).toMatchObject({ code: 1009 })
  // Mistakes of one who never reads are not kept.
  const flood = await SocketClient.connect(url, '/v1/stream')
  flood.socket.pause()
  for (let i = 0; i < 100_000; i++) flood.socket.send('{}')
  await until(() => flood.socket.bufferedAmount === 0)
  flood.socket.resume()
  expect(await flood.closed).toEqual({ code: 1008, reason: 'Read what you are told.' })
  const many = await SocketClient.connect(url, '/v1/stream')
  for (let id = 0; id < 257; id++)
    many.send({ id, method: 'completions', params: { prompt: 'x', max_tokens: 900_000 }, credit: 1 })
  const frames = await many.until(({ error }) => error)
  expect(frames.at(-1)).toMatchObject({ id: 256, error: { type: 'rate_limit_error', code: 'rate_limit_exceeded' } })
})

test('the handshake: keys, origins, paths and ids are those of HTTP', async () => {
  const { url, logged } = await startFakeServer({ apiKey: 'secret', allowedOrigins: ['https://example.org'] })
  const key = { authorization: 'Bearer secret' }
  expect(await refused(url, '/v1/stream')).toMatchObject({
    status: 401,
    headers: { 'content-type': 'application/json', 'www-authenticate': 'Bearer' },
    body: { error: { code: null } },
  })
  expect(await refused(url, '/v1/stream', { headers: { authorization: 'Bearer wrong' } })).toMatchObject({
    status: 401,
    body: { error: { code: 'invalid_api_key' } },
  })
  for (const protocols of [['openai-insecure-api-key.wrong'], ['realtime', 'openai-insecure-api-key.']])
    expect((await refused(url, '/v1/stream', { protocols })).status).toBe(401)
  expect(await refused(url, '/v1/stream', { headers: key, origin: 'https://evil.example' })).toMatchObject({
    status: 403,
    body: { error: { code: 'origin_not_allowed' } },
  })
  expect(await refused(url, '/v1/nothing', { headers: key })).toMatchObject({
    status: 404,
    body: { error: { code: 'unknown_url' } },
  })
  expect(await refused(url, '/v1/nothing')).toMatchObject({ status: 401 })
  expect(await refused(url, '/v1/completions', { headers: key })).toMatchObject({ status: 405 })
  const plain = await fetch(`${url}/v1/stream`, { headers: key })
  expect([plain.status, plain.headers.get('upgrade'), await plain.json()]).toMatchObject([
    426,
    'websocket',
    { error: { code: 'upgrade_required' } },
  ])

  const headers: Record<string, unknown> = {}
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/stream`, {
    headers: { ...key, 'x-request-id': 'mine-1' },
    origin: 'https://example.org',
  })
  socket.on('upgrade', (response) => Object.assign(headers, response.headers))
  await new Promise((resolve) => socket.on('open', resolve))
  expect(headers).toMatchObject({ 'x-request-id': 'mine-1' })
  expect(headers).not.toHaveProperty('sec-websocket-extensions')
  socket.send('{')
  await until(() => logged.some(({ request_id }) => request_id === 'mine-1-1'))
  socket.terminate()
  // As browsers do it, which can send no header: the key among the subprotocols, another one chosen.
  const browser = await SocketClient.connect(url, '/v1/stream', {
    protocols: ['realtime', 'openai-insecure-api-key.secret'],
  })
  expect(browser.socket.protocol).toBe('realtime')
})

test('where many connect at once, each turn of the event loop takes a few, and all get in', async () => {
  const { port, state } = await startFakeServer()
  let opened = 0
  state.metrics.socketOpened = () => {
    opened++
  }
  const head = [
    ...['GET /v1/stream HTTP/1.1', 'host: x', 'connection: upgrade', 'upgrade: websocket'],
    ...['sec-websocket-version: 13', 'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==', '', ''],
  ].join('\r\n')
  const sockets = Array.from({ length: 200 }, () => connect(port, '127.0.0.1'))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
  })
  await Promise.all(sockets.map((socket) => once(socket, 'connect')))
  for (const socket of sockets) socket.write(head)
  let before = 0
  let most = 0
  await until(() => {
    most = Math.max(most, opened - before)
    before = opened
    return opened === sockets.length
  })
  expect(most).toBeLessThanOrEqual(16)
})

test('a handshake that is no handshake, and an upgrade to something else', async () => {
  const { url, port, post } = await startFakeServer()
  const exchange = (text: string) =>
    new Promise<string>((resolve) => {
      let answer = ''
      const socket = connect(port, '127.0.0.1', () => socket.write(text))
      socket.on('data', (data) => (answer += data)).on('close', () => resolve(answer))
    })
  const upgrade = 'connection: upgrade\r\nupgrade: websocket\r\n'
  expect(await exchange(`GET /v1/stream HTTP/1.1\r\nhost: x\r\nx-request-id: mine\r\n${upgrade}\r\n`)).toMatch(
    /^HTTP\/1.1 400 [\s\S]*x-request-id: mine\r\n[\s\S]*\{"error":\{"message":"Missing or invalid Sec-WebSocket-Key header.",.*"bad_http"/,
  )
  expect(await exchange(`GET /v1/stream HTTP/1.1\r\nhost: a b\r\n${upgrade}\r\n`)).toMatch(
    /^HTTP\/1.1 400 [\s\S]*bad_http/,
  )
  // Java's client and curl --http2 offer HTTP/2 with their first request.
  const body = JSON.stringify({ prompt: 'x' })
  const h2c = `connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n`
  const head = `POST /v1/completions HTTP/1.1\r\nhost: x\r\n${h2c}content-type: application/json\r\ncontent-length: ${body.length}\r\n`
  const socket = connect(port, '127.0.0.1')
  let answers = ''
  socket.on('data', (data) => (answers += data))
  for (const [request, numAnswers] of [
    [`${head}\r\n${body}`, 1],
    [`GET /version HTTP/1.1\r\nhost: x\r\n${h2c}\r\n`, 2],
    [`${head}\r\n${body}`, 3],
    ['GET /version HTTP/1.1\r\nhost: x\r\n\r\n', 4],
  ] as const) {
    socket.write(request)
    await until(() => answers.match(/HTTP\/1.1 200 OK/g)?.length === numAnswers)
  }
  socket.destroy()
  expect(answers).toMatch(/Hello world[\s\S]*"version"[\s\S]*Hello world[\s\S]*"version"/)
  expect((await post('/v1/completions', { prompt: 'x' })).status).toBe(200)
  expect((await fetch(`${url}/health`)).status).toBe(200)
})

test('a server that goes closes a connection when its requests have ended', async () => {
  const { url, state, engine } = await startFakeServer({ script: () => [word('Hello'), word(' world'), EOS] })
  const [idle, busy] = [await SocketClient.connect(url, '/v1/stream'), await SocketClient.connect(url, '/v1/stream')]
  busy.send({ id: 1, method: 'completions', params: { prompt: 'x' }, credit: 1 })
  await busy.next()
  state.phase = { name: 'draining', engine }
  state.sockets.drain()
  const goodbye = { code: 1001, reason: 'The server is shutting down.' }
  expect(await idle.closed).toEqual(goodbye)
  busy.send({ id: 2, method: 'completions', params: { prompt: 'x' } })
  expect(await busy.next()).toMatchObject({ id: 2, error: { code: 'server_shutting_down', type: 'server_error' } })
  busy.send({ id: 1, credit: 10 })
  expect((await busy.until(({ done }) => done)).length).toBe(3)
  expect(await busy.closed).toEqual(goodbye)
  expect(await refused(url, '/v1/stream')).toMatchObject({
    status: 503,
    body: { error: { code: 'server_shutting_down' } },
  })
})

test('a peer that answers no ping is cut, and its requests end', async () => {
  const { script } = forever()
  const { url, engine } = await startFakeServer({ script, heartbeatMs: 60 })
  const alive = await SocketClient.connect(url, '/v1/stream')
  const dead = await SocketClient.connect(url, '/v1/stream', { autoPong: false } as ClientOptions)
  dead.send({ id: 1, method: 'completions', params: { prompt: 'x' } })
  expect(await dead.closed).toEqual({ code: 1006, reason: '' })
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
  expect(alive.socket.readyState).toBe(WebSocket.OPEN)
})

test('a model that is loading says so; the connection waits for it', async () => {
  const { url } = await startFakeServer({ phase: 'loading' })
  const client = await SocketClient.connect(url, '/v1/stream')
  client.send({ id: 1, method: 'completions', params: { prompt: 'x' } })
  expect(await client.next()).toMatchObject({ id: 1, error: { code: 'model_loading' } })
})
