// Anthropic's API with Anthropic's client, over real sockets.

import Anthropic from '@anthropic-ai/sdk'
import { expect, test } from 'vitest'
import { ASSISTANT, EOS, USER, word } from '../generation/fake_model.js'
import { type FakeServer, startFakeServer } from './fake_server.js'

const model = 'org/fake'
const messages = [{ role: 'user' as const, content: 'Hi' }]

function clientOf({ url }: FakeServer, apiKey = 'none'): Anthropic {
  return new Anthropic({ baseURL: url, apiKey, maxRetries: 0 })
}

test('a message, whole', async () => {
  const server = await startFakeServer()
  const message = await clientOf(server).messages.create({ model, max_tokens: 10, messages, system: 'Be brief.' })
  expect(message).toMatchObject({
    id: expect.stringMatching(/^msg_[0-9a-f]{32}$/),
    type: 'message',
    role: 'assistant',
    model,
    content: [{ type: 'text', text: 'Hello world', citations: null }],
    stop_reason: 'end_turn',
    stop_sequence: null,
    usage: { input_tokens: 14, output_tokens: 3, cache_read_input_tokens: 0 },
  })
  expect(message._request_id).toMatch(/^req_/)
})

test('a message as a stream: the events in their order, and the same message at the end', async () => {
  const server = await startFakeServer()
  const client = clientOf(server)
  const names: string[] = []
  for await (const event of await client.messages.create({ model, max_tokens: 10, messages, stream: true })) {
    names.push(event.type)
  }
  expect(names).toEqual([
    'message_start',
    'content_block_start',
    'content_block_delta',
    'content_block_delta',
    'content_block_stop',
    'message_delta',
    'message_stop',
  ])
  const whole = await client.messages.create({ model, max_tokens: 10, messages })
  const { id, ...final } = await client.messages.stream({ model, max_tokens: 10, messages }).finalMessage()
  expect(JSON.parse(JSON.stringify({ ...final, id: whole.id }))).toMatchObject(JSON.parse(JSON.stringify(whole)))
  expect(id).toMatch(/^msg_/)
  const text = await (await server.post('/v1/messages', { max_tokens: 10, messages, stream: true })).text()
  expect(text).toMatch(/^event: message_start\ndata: \{"type":"message_start",/)
  expect(text).toContain('event: ping\ndata: {"type":"ping"}\n\n')
  expect(text).not.toContain('[DONE]')
})

test('why a message ends', async () => {
  const server = await startFakeServer({ script: () => [word('Hello'), word(' STOP'), ...Array(300).fill(97)] })
  const client = clientOf(server)
  const why = async (more: object) => {
    const { stop_reason, stop_sequence, content } = await client.messages.create({
      model,
      max_tokens: 5,
      messages,
      ...more,
    })
    return [stop_reason, stop_sequence, (content[0] as { text: string }).text.slice(0, 12)]
  }
  expect(await why({ stop_sequences: ['STOP'] })).toEqual(['stop_sequence', 'STOP', 'Hello '])
  expect(await why({})).toEqual(['max_tokens', null, 'Hello STOPaa'])
  // These clients always name a number; one that does not fit is no mistake.
  expect(await why({ max_tokens: 4096 })).toEqual(['model_context_window_exceeded', null, 'Hello STOPaa'])
  expect(server.engine.seen.at(-1)?.sampling.max_tokens).toBe(252)
})

test('a turn of the assistant at the end is continued, turns of one role are one', async () => {
  const server = await startFakeServer()
  await clientOf(server).messages.create({
    model,
    max_tokens: 10,
    messages: [
      { role: 'user', content: 'a' },
      { role: 'user', content: [{ type: 'text', text: 'b', cache_control: { type: 'ephemeral' } }] },
      { role: 'assistant', content: 'c' },
    ],
  })
  expect(Array.from(server.engine.seen[0]?.prompt ?? [])).toEqual([USER, 97, 10, 98, ASSISTANT, 99])
})

test('tokens are counted', async () => {
  const server = await startFakeServer()
  expect(await clientOf(server).messages.countTokens({ model, messages })).toEqual({ input_tokens: 4 })
  expect(server.engine.seen).toEqual([])
})

test('errors are Anthropic’s, with the classes of its client', async () => {
  const server = await startFakeServer({ apiKey: 'secret' })
  const client = clientOf(server, 'secret')
  const create = (more: object) => client.messages.create({ model, max_tokens: 10, messages, ...more })
  await expect(clientOf(server, 'wrong').messages.create({ model, max_tokens: 1, messages })).rejects.toMatchObject({
    constructor: Anthropic.AuthenticationError,
    type: 'authentication_error',
  })
  await expect(create({ model: 'claude' })).rejects.toMatchObject({
    constructor: Anthropic.NotFoundError,
    type: 'not_found_error',
    requestID: expect.stringMatching(/^req_/),
  })
  const cases: [more: object, message: RegExp][] = [
    [{ max_tokens: undefined }, /'max_tokens' is missing/],
    [{ max_tokens: 0 }, /'max_tokens' must be at least 1/],
    [{ temperature: 1.5 }, /'temperature' must be at most 1/],
    [{ tools: [{ name: 'x' }] }, /'tools' is not supported/],
    [{ thinking: { type: 'enabled', budget_tokens: 1024 } }, /'thinking' is not supported/],
    [{ messages: [{ role: 'user', content: [{ type: 'image' }] }] }, /'messages.0.content.0.type' must be/],
    [{ messages: [{ role: 'king', content: 'x' }] }, /'messages.0.role' must be one of/],
  ]
  for (const [more, message] of cases) {
    await expect(create(more)).rejects.toMatchObject({
      constructor: Anthropic.BadRequestError,
      type: 'invalid_request_error',
      message: expect.stringMatching(message),
    })
  }
  const bearer = new Anthropic({ baseURL: server.url, authToken: 'secret', apiKey: null, maxRetries: 0 })
  expect((await bearer.messages.create({ model, max_tokens: 10, messages })).role).toBe('assistant')
})

test('an error after the first token is an event that the client throws', async () => {
  const server = await startFakeServer({ script: () => [word('Hello'), new Error('broken'), EOS] })
  const stream = await clientOf(server).messages.create({ model, max_tokens: 10, messages, stream: true })
  await expect(async () => {
    for await (const _ of stream);
  }).rejects.toMatchObject({ error: { type: 'error', error: { type: 'api_error' } } })
  const loading = await startFakeServer({ phase: 'loading' })
  await expect(clientOf(loading).messages.create({ model, max_tokens: 10, messages })).rejects.toMatchObject({
    status: 503,
    type: 'overloaded_error',
  })
})
