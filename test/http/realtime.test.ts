// /v1/realtime: OpenAI's Realtime protocol for text.

import { connect } from 'node:net'
import OpenAI from 'openai'
import { OpenAIRealtimeWS } from 'openai/realtime/ws'
import OpenAI5 from 'openai-5'
import { OpenAIRealtimeWS as OpenAIRealtimeWS5 } from 'openai-5/realtime/ws'
import { expect, test } from 'vitest'
import { EOS, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'
import { type Frame, SocketClient } from './socket_client.js'

const user = (text: string, more: object = {}) => ({
  type: 'conversation.item.create',
  item: { type: 'message', role: 'user', content: [{ type: 'input_text', text }], ...more },
})
const isDone = ({ type }: Frame) => type === 'response.done'
const typesOf = (events: Frame[]) => events.map(({ type }) => type)
const promptText = (prompt: Int32Array | undefined) => String.fromCharCode(...(prompt ?? []))
/** One token, and no more until the connection or the response ends. */
const stuck = async function* () {
  yield word('Hello')
  await new Promise(() => {})
}

async function begin(url: string): Promise<SocketClient> {
  const client = await SocketClient.connect(url, '/v1/realtime?model=org/fake')
  expect(await client.next()).toMatchObject({
    type: 'session.created',
    session: {
      ...{ type: 'realtime', object: 'realtime.session', model: 'org/fake', output_modalities: ['text'] },
      ...{ instructions: '', max_output_tokens: 'inf', tools: [], tool_choice: 'auto' },
    },
  })
  return client
}

test('a conversation of two turns: every event, in order', async () => {
  const { url, engine } = await startFakeServer()
  const client = await begin(url)
  client.send({ type: 'session.update', session: { type: 'realtime', instructions: 'Be kind.', temperature: 0 } })
  expect(await client.next()).toMatchObject({ type: 'session.updated', session: { instructions: 'Be kind.' } })
  client.send(user('first', { id: 'item_1' }))
  const item = { id: 'item_1', object: 'realtime.item', status: 'completed', role: 'user' }
  expect(await client.next()).toMatchObject({ type: 'conversation.item.added', previous_item_id: null, item })
  expect(await client.next()).toMatchObject({ type: 'conversation.item.done', previous_item_id: null, item })

  client.send({ type: 'response.create', response: { metadata: { a: 'b' } } })
  const events = await client.until(isDone)
  expect(typesOf(events)).toEqual([
    ...['response.created', 'response.output_item.added', 'conversation.item.added', 'response.content_part.added'],
    ...['response.output_text.delta', 'response.output_text.delta', 'response.output_text.done'],
    ...['response.content_part.done', 'conversation.item.done', 'response.output_item.done', 'response.done'],
  ])
  expect(new Set(events.map(({ event_id }) => event_id)).size).toBe(events.length)
  const { response } = events[0]
  expect(response).toMatchObject({ object: 'realtime.response', status: 'in_progress', output: [], usage: null })
  const { id: item_id } = events[1].item
  expect(events[2]).toMatchObject({ previous_item_id: 'item_1', item: { id: item_id, status: 'in_progress' } })
  const place = { response_id: response.id, item_id, output_index: 0, content_index: 0 }
  expect(events[4]).toMatchObject({ ...place, delta: 'Hello' })
  expect(events[6]).toMatchObject({ ...place, text: 'Hello world' })
  const output = { id: item_id, status: 'completed', content: [{ type: 'output_text', text: 'Hello world' }] }
  expect(events.at(-1).response).toMatchObject({
    ...{ id: response.id, status: 'completed', status_details: null, output: [output], metadata: { a: 'b' } },
    usage: {
      ...{ total_tokens: events.at(-1).response.usage.input_tokens + 3, output_tokens: 3 },
      output_token_details: { text_tokens: 3, audio_tokens: 0 },
    },
  })

  client.send(user('second'), { type: 'response.create' })
  await client.until(isDone)
  expect(promptText(engine.seen[0]?.prompt)).toMatch(/Be kind\..*first/s)
  expect(promptText(engine.seen[1]?.prompt)).toMatch(/Be kind\..*first.*Hello world.*second/s)
  expect(engine.seen[1]?.sampling.temperature).toBe(0)
})

test('items: before others, read again, deleted; a response beside the conversation', async () => {
  const { url, engine } = await startFakeServer()
  const client = await begin(url)
  client.send(user('b', { id: 'b' }), { ...user('a', { id: 'a' }), previous_item_id: 'root' })
  client.send({ ...user('c', { id: 'c' }), previous_item_id: 'a' }, { type: 'conversation.item.delete', item_id: 'b' })
  const events = await client.until(({ type }) => type === 'conversation.item.deleted')
  expect(events.map(({ previous_item_id }) => previous_item_id)).toEqual([null, null, null, null, 'a', 'a', undefined])
  client.send({ type: 'conversation.item.retrieve', item_id: 'c' })
  expect(await client.next()).toMatchObject({
    type: 'conversation.item.retrieved',
    item: { id: 'c', content: [{ type: 'input_text', text: 'c' }] },
  })
  const input = [user('aside').item]
  client.send({ type: 'response.create', response: { conversation: 'none', input, instructions: 'Answer.' } })
  const aside = await client.until(isDone)
  expect(typesOf(aside).filter((type) => type.startsWith('conversation'))).toEqual([])
  expect(aside.at(-1).response.conversation_id).toBeNull()
  client.send({ type: 'response.create' })
  await client.until(isDone)
  expect(promptText(engine.seen[0]?.prompt)).toMatch(/Answer\..*aside/s)
  expect(promptText(engine.seen[1]?.prompt)).toMatch(/a.*c/s)
  expect(promptText(engine.seen[1]?.prompt)).not.toMatch(/aside|b|Hello/)
})

test('cancel; one active response in the conversation; others beside it', async () => {
  const { url, engine } = await startFakeServer({ script: stuck })
  const client = await begin(url)
  client.send(user('x'), { type: 'response.create' })
  await client.until(({ type }) => type === 'response.output_text.delta')
  client.send({ type: 'response.create', event_id: 'mine' })
  expect(await client.next()).toMatchObject({
    type: 'error',
    error: { code: 'conversation_already_has_active_response', event_id: 'mine', type: 'invalid_request_error' },
  })
  const input = [user('aside').item]
  client.send({ type: 'response.create', response: { conversation: 'none', input } })
  const aside = await client.until(({ type }) => type === 'response.output_text.delta')
  client.send({ type: 'response.cancel', response_id: aside[0].response.id })
  const ended = (await client.until(isDone)).at(-1).response
  expect(ended).toMatchObject({
    ...{ id: aside[0].response.id, status: 'cancelled', output: [{ status: 'incomplete' }] },
    status_details: { type: 'cancelled', reason: 'client_cancelled' },
  })
  client.send({ type: 'response.cancel' })
  expect((await client.until(isDone)).at(-1).response.status).toBe('cancelled')
  expect(engine.seen.map(({ state }) => state)).toEqual(['cancelled', 'cancelled'])
  client.send({ type: 'response.cancel' })
  expect(await client.next()).toMatchObject({ error: { code: 'response_cancel_not_active' } })
  client.send({ type: 'response.create' })
  await client.until(({ type }) => type === 'response.output_text.delta')
  client.socket.terminate()
  await engine.until(({ seen }) => seen[2]?.state === 'cancelled')
})

test('a limit and a failure end with response.done', async () => {
  let script: (number | Error)[] = [word('Hello'), word(' world'), EOS]
  const { url } = await startFakeServer({ script: () => script })
  const client = await begin(url)
  client.send(user('x'), { type: 'response.create', response: { max_output_tokens: 1 } })
  expect((await client.until(isDone)).at(-1).response).toMatchObject({
    ...{ status: 'incomplete', max_output_tokens: 1, output: [{ status: 'incomplete' }] },
    status_details: { type: 'incomplete', reason: 'max_output_tokens' },
  })
  script = [word('Hello'), new Error('boom')]
  client.send({ type: 'response.create' })
  expect((await client.until(isDone)).at(-1).response).toMatchObject({
    status: 'failed',
    status_details: { type: 'failed', error: { type: 'server_error', code: 'engine_failure' } },
  })
})

test('mistakes, and what is not of text, are refused by name with the event they are about', async () => {
  const { url, engine } = await startFakeServer()
  const client = await begin(url)
  for (const [message, code, param] of [
    [{}, 'invalid_value', 'type'],
    [{ type: 'toString' }, 'invalid_value', 'type'],
    [{ type: 'input_audio_buffer.append', audio: '' }, 'unsupported_value', 'type'],
    [{ type: 'session.update' }, 'invalid_type', 'session'],
    [{ type: 'session.update', session: { type: 'transcription' } }, 'unsupported_parameter', 'type'],
    [
      { type: 'session.update', session: { output_modalities: ['audio'] } },
      'unsupported_parameter',
      'output_modalities',
    ],
    [{ type: 'session.update', session: { audio: {} } }, 'unsupported_parameter', 'audio'],
    [{ type: 'session.update', session: { tools: [{}] } }, 'unsupported_parameter', 'tools'],
    [{ type: 'session.update', session: { model: 'other' } }, 'model_not_found', 'model'],
    [{ type: 'session.update', session: { max_output_tokens: 0 } }, 'invalid_value', 'max_output_tokens'],
    [{ type: 'session.update', session: { temperature: 9 } }, 'decimal_above_max_value', 'temperature'],
    [{ type: 'response.create', response: { voice: 'alloy' } }, 'unsupported_parameter', 'voice'],
    [
      { type: 'response.create', response: { input: [{ type: 'item_reference' }] } },
      'unsupported_value',
      'input.0.type',
    ],
    [{ type: 'response.create', response: { max_output_tokens: 100_000 } }, 'context_length_exceeded', 'input'],
    [{ type: 'conversation.item.create' }, 'invalid_type', 'item'],
    [user('x', { content: [{ type: 'input_audio', audio: '' }] }), 'unsupported_value', 'item.content.0.type'],
    [user('x', { role: 'tool' }), 'invalid_value', 'item.role'],
    [{ ...user('x'), previous_item_id: 'nothing' }, 'item_not_found', 'previous_item_id'],
    [{ type: 'conversation.item.delete' }, 'missing_required_parameter', 'item_id'],
    [{ type: 'conversation.item.delete', item_id: 'nothing' }, 'item_not_found', 'item_id'],
    [{ type: 'response.cancel', response_id: 'nothing' }, 'response_cancel_not_active', 'response_id'],
  ] as const) {
    client.send({ event_id: 'mine', ...message })
    const event = await client.next()
    expect([message, event]).toMatchObject([message, { type: 'error', error: { code, param, event_id: 'mine' } }])
  }
  client.send(user('x', { id: 'twice' }), user('x', { id: 'twice' }))
  const events = await client.until(({ type }) => type === 'error')
  expect(events.at(-1)).toMatchObject({ error: { param: 'item.id', event_id: null } })
  expect(engine.seen).toEqual([])
  for (const query of ['model=other', 'model=org/fake&intent=transcription', 'call_id=1'])
    await expect(SocketClient.connect(url, `/v1/realtime?${query}`)).rejects.toThrow(/Unexpected server response: 40/)
})

for (const [version, Client, Socket] of [
  ['newest', OpenAI, OpenAIRealtimeWS],
  ['previous', OpenAI5, OpenAIRealtimeWS5],
] as const) {
  test(`the client of the openai package, ${version} major`, async () => {
    const { url, port } = await startFakeServer({ apiKey: 'secret' })
    const client = new Client({ baseURL: `${url}/v1`, apiKey: 'secret' })
    // The client speaks TLS whatever its URL says; behind a real server a proxy takes that off.
    const options = { createConnection: () => connect(port, '127.0.0.1') }
    // biome-ignore lint/suspicious/noExplicitAny: two classes of the same shape
    const socket: OpenAIRealtimeWS = new Socket({ model: 'org/fake', options: options as object }, client as any) as any
    let text = ''
    const errors: unknown[] = []
    const done = new Promise<string | undefined>((resolve) => {
      socket.on('session.created', () => {
        socket.send({ type: 'conversation.item.retrieve', item_id: 'nothing', event_id: 'wrong' })
        socket.send({ type: 'session.update', session: { type: 'realtime', output_modalities: ['text'] } })
        const content = [{ type: 'input_text' as const, text: 'Say hello.' }]
        socket.send({ type: 'conversation.item.create', item: { type: 'message', role: 'user', content } })
        socket.send({ type: 'response.create' })
      })
      socket.on('error', (error) => errors.push(error.error?.event_id))
      socket.on('response.output_text.delta', ({ delta }) => (text += delta))
      socket.on('response.done', ({ response }) => resolve(response.status))
    })
    expect(await done).toBe('completed')
    expect([text, errors]).toEqual(['Hello world', ['wrong']])
    socket.close()
  })
}
