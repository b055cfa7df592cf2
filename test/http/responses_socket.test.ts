// /v1/responses as a WebSocket: the events of SSE, one response after the other; the openai package's own client.

import OpenAI from 'openai'
import { ResponsesWS } from 'openai/resources/responses/ws'
import { expect, test } from 'vitest'
import { EOS, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'
import { type Frame, SocketClient } from './socket_client.js'

const ended = ({ type }: Frame) => /^(error|response\.(completed|incomplete|failed))$/.test(type)

/** Without what differs from response to response. */
const same = (events: Frame[]) =>
  JSON.parse(
    JSON.stringify(events, (key, value) =>
      /^(id|item_id|created_at|completed_at|previous_response_id)$/.test(key) ? null : value,
    ),
  )

async function sse(response: Response): Promise<Frame[]> {
  const text = await response.text()
  return [...text.matchAll(/^data: (.*)$/gm)].map(([, data]) => JSON.parse(data ?? ''))
}

test('the events of SSE; queued responses come one after the other', async () => {
  const { url, post } = await startFakeServer()
  const client = await SocketClient.connect(url, '/v1/responses')
  const body = { input: 'x', instructions: 'Be kind.', include: ['message.output_text.logprobs'] }
  client.send({ type: 'response.create', ...body }, { type: 'response.create', input: 'y' })
  const first = await client.until(ended)
  expect(same(first)).toEqual(same(await sse(await post('/v1/responses', { ...body, stream: true }))))
  const second = await client.until(ended)
  expect(second.map(({ sequence_number }) => sequence_number)).toEqual(second.map((_, i) => i))
})

test('a response goes on from the one before, also from one that is not kept', async () => {
  const { url, engine, post } = await startFakeServer()
  const client = await SocketClient.connect(url, '/v1/responses')
  const ask = async (body: object): Promise<Frame> => {
    client.send({ type: 'response.create', ...body })
    return (await client.until(ended)).at(-1)
  }
  const { response } = await ask({ input: 'first', store: false })
  const next = await ask({ input: 'second', previous_response_id: response.id, store: false })
  expect(next.response).toMatchObject({ status: 'completed', previous_response_id: response.id })
  const text = (prompt: Int32Array | undefined) => String.fromCharCode(...(prompt ?? []))
  expect(text(engine.seen[1]?.prompt)).toMatch(/first.*second/)
  const gone = { code: 'response_not_found', param: 'previous_response_id' }
  expect(await ask({ input: 'third', previous_response_id: response.id })).toMatchObject({ error: gone, status: 404 })
  const other = await post('/v1/responses', { input: 'x', previous_response_id: next.response.id })
  expect(other.status).toBe(404)
})

test('lanes run beside each other, each in order, and each goes on from its own newest response', async () => {
  let finish = () => {}
  const gate = new Promise<void>((resolve) => {
    finish = resolve
  })
  const { url, engine } = await startFakeServer({
    script: async function* ({ prompt }) {
      yield word('Hello')
      if (String.fromCharCode(...prompt).includes('slow')) await gate
      yield EOS
    },
  })
  const client = await SocketClient.connect(url, '/v1/responses')
  const ask = (stream_id: string | null, input: string, more: object = {}) =>
    client.send({ type: 'response.create', stream_id, input, store: false, ...more })
  ask('a', 'slow')
  ask('a', 'behind it')
  ask('b', 'quick')
  const quick = await client.until((frame) => ended(frame) && frame.stream_id === 'b')
  expect(new Set(quick.map(({ stream_id }) => stream_id))).toEqual(new Set(['a', 'b']))
  expect(engine.seen).toHaveLength(2)
  ask(null, 'without a name')
  const unnamed = await client.until((frame) => ended(frame) && !('stream_id' in frame))
  expect(unnamed.at(-1).response.status).toBe('completed')
  finish()
  const slow = await client.until(ended)
  const behind = await client.until(ended)
  expect([...slow, ...behind].every(({ stream_id }) => stream_id === 'a')).toBe(true)
  // Other lanes have had newer responses meanwhile.
  ask('b', 'more', { previous_response_id: quick.at(-1).response.id })
  expect((await client.until(ended)).at(-1)).toMatchObject({ stream_id: 'b', response: { status: 'completed' } })
  ask('b', 'x', { previous_response_id: 'resp_x' })
  expect(await client.next()).toMatchObject({ stream_id: 'b', status: 404 })
  // So many are remembered and no more.
  for (let i = 0; i < 64; i++) ask(`lane ${i}`, 'x')
  for (let i = 0; i < 64; i++) await client.until(ended)
  ask('a', 'x', { previous_response_id: behind.at(-1).response.id })
  expect(await client.next()).toMatchObject({ stream_id: 'a', status: 404 })
  for (const wrong of ['', 5, 'x'.repeat(65)]) {
    client.send({ type: 'response.create', stream_id: wrong, input: 'x' })
    expect(await client.next()).toMatchObject({ status: 400, param: 'stream_id' })
  }
})

test('mistakes: the error of HTTP and its status; what a WebSocket does not do is refused by name', async () => {
  let script = [word('Hello'), new Error('boom')]
  const { url, post } = await startFakeServer({ script: () => script })
  const client = await SocketClient.connect(url, '/v1/responses')
  for (const body of [{}, { input: 5 }, { input: 'x', model: 'other' }, { input: 'x', tools: [{}] }]) {
    client.send({ type: 'response.create', ...body })
    const response = await post('/v1/responses', body)
    const { error } = (await response.json()) as Frame
    const { code, message, param } = error
    const expected = { type: 'error', status: response.status, error, code, message, param, sequence_number: 0 }
    expect(await client.next()).toEqual(expected)
  }
  for (const [message, code, param] of [
    [{ type: 'response.steer' }, 'invalid_value', 'type'],
    [{ input: 'x' }, 'invalid_value', 'type'],
    [{ type: 'response.create', input: 'x', background: true }, 'unsupported_parameter', 'background'],
    [{ type: 'response.create', input: 'x', generate: false }, 'unsupported_parameter', 'generate'],
  ] as const) {
    client.send(message)
    expect(await client.next()).toMatchObject({ type: 'error', status: 400, error: { code, param } })
  }
  client.send({ type: 'response.create', input: 'x' })
  const late = await client.until(({ type }) => type === 'response.failed')
  expect(late.at(-2)).toMatchObject({ type: 'error', code: 'engine_failure' })
  script = [new Error('boom')]
  client.send({ type: 'response.create', input: 'x' })
  expect(await client.next()).toMatchObject({ type: 'error', status: 500, error: { code: 'engine_failure' } })
})

test('a connection that ends cancels the response that runs, and those that wait never begin', async () => {
  const { url, engine, state } = await startFakeServer({
    script: async function* () {
      yield word('Hello')
      await new Promise(() => {})
    },
  })
  const client = await SocketClient.connect(url, '/v1/responses')
  client.send({ type: 'response.create', input: 'x' }, { type: 'response.create', input: 'y' })
  await client.until(({ type }) => type === 'response.output_text.delta')
  client.socket.terminate()
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
  await expect.poll(() => state.inFlight).toBe(0)
  expect(engine.seen).toHaveLength(1)
})

test('the client of the openai package', async () => {
  const { url } = await startFakeServer({ apiKey: 'secret' })
  const socket = new ResponsesWS(new OpenAI({ baseURL: `${url}/v1`, apiKey: 'secret' }))
  socket.send({ type: 'response.create', model: 'org/fake', input: 'x' })
  let text = ''
  for await (const event of socket.stream()) {
    if (event.type !== 'message') continue
    if (event.message.type === 'response.output_text.delta') text += event.message.delta
    if (event.message.type === 'response.completed') break
  }
  expect(text).toBe('Hello world')
  socket.close()
})
