// The responses API over real sockets, with both majors of its client.

import OpenAI from 'openai'
import OpenAI5 from 'openai-5'
import { expect, test } from 'vitest'
import type { ResponseEvent, ResponseObject } from '../../src/http/response_shapes.js'
import { ResponseStore } from '../../src/http/response_store.js'
import { bytesOf, EOS, USER, word } from '../generation/fake_model.js'
import { startFakeServer, until } from './fake_server.js'

const model = 'org/fake'

/** The events of a stream, as they stand on the wire. */
async function wireEvents(response: Response): Promise<{ name: string; data: ResponseEvent }[]> {
  const text = await response.text()
  expect(text).not.toContain('[DONE]')
  return text
    .split('\n\n')
    .filter((event) => event !== '')
    .map((event) => {
      const [, name = '', data = ''] = /^event: (.*)\ndata: (.*)$/.exec(event) ?? []
      return { name, data: JSON.parse(data) }
    })
}

/** Without what differs from answer to answer. */
function stable(response: ResponseObject): unknown {
  return JSON.parse(
    JSON.stringify(response)
      .replace(/(resp|msg)_[0-9a-f]{32}/g, '$1')
      .replace(/"(created|completed)_at":\d+/g, '"$1_at":0'),
  )
}

test('a response has every key that OpenAI requires', async () => {
  const { post } = await startFakeServer()
  const response = (await (await post('/v1/responses', { input: 'Hi', metadata: { a: 'b' } })).json()) as ResponseObject
  expect(stable(response)).toEqual({
    id: 'resp',
    object: 'response',
    access_programs: null,
    created_at: 0,
    completed_at: 0,
    status: 'completed',
    background: false,
    error: null,
    incomplete_details: null,
    instructions: null,
    max_output_tokens: null,
    metadata: { a: 'b' },
    model,
    output: [
      {
        id: 'msg',
        type: 'message',
        status: 'completed',
        role: 'assistant',
        content: [{ type: 'output_text', text: 'Hello world', annotations: [], logprobs: [] }],
      },
    ],
    output_text: 'Hello world',
    parallel_tool_calls: true,
    previous_response_id: null,
    service_tier: 'default',
    store: true,
    temperature: 1,
    text: { format: { type: 'text' } },
    tool_choice: 'auto',
    tools: [],
    top_logprobs: 0,
    top_p: 1,
    truncation: 'disabled',
    usage: {
      input_tokens: 4,
      input_tokens_details: { cached_tokens: 0, cache_write_tokens: 0 },
      output_tokens: 3,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: 7,
    },
  })
})

test("a response shows the model's own temperature and top_p where the request has none", async () => {
  const { post } = await startFakeServer({ model: { generationDefaults: { temperature: 0.5, top_p: 0.25 } } })
  const shown = async (body: object) => {
    const { temperature, top_p } = (await (
      await post('/v1/responses', { input: 'x', ...body })
    ).json()) as ResponseObject
    return [temperature, top_p]
  }
  expect(await shown({})).toEqual([0.5, 0.25])
  expect(await shown({ temperature: 0, top_p: 1 })).toEqual([0, 1])
})

test('a stream: names, numbers and the order of the specification, and at its end the whole answer', async () => {
  const { post } = await startFakeServer()
  const body = { input: 'Hi', include: ['message.output_text.logprobs'] }
  const whole = (await (await post('/v1/responses', body)).json()) as ResponseObject
  const response = await post('/v1/responses', { ...body, stream: true })
  expect(response.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
  const events = await wireEvents(response)
  expect(events.map(({ name }) => name)).toEqual([
    'response.created',
    'response.in_progress',
    'response.output_item.added',
    'response.content_part.added',
    'response.output_text.delta',
    'response.output_text.delta',
    'response.output_text.delta',
    'response.output_text.done',
    'response.content_part.done',
    'response.output_item.done',
    'response.completed',
  ])
  for (const [i, { name, data }] of events.entries()) expect([data.type, data.sequence_number]).toEqual([name, i])
  const first = events[0]?.data as ResponseEvent & { response: ResponseObject }
  expect(first.response).toMatchObject({ status: 'in_progress', output: [] })
  expect(first.response.usage).toBeUndefined()
  const last = events.at(-1)?.data as ResponseEvent & { response: ResponseObject }
  expect(stable(last.response)).toEqual(stable(whole))
  const deltas = events.flatMap(({ data }) => (data.type === 'response.output_text.delta' ? [data] : []))
  expect(deltas.map(({ delta }) => delta).join('')).toBe('Hello world')
  expect(deltas.flatMap(({ logprobs }) => logprobs)).toEqual(whole.output[0]?.content[0]?.logprobs)
  expect(new Set(deltas.map(({ item_id }) => item_id))).toEqual(new Set([last.response.output[0]?.id]))
})

test('at its most tokens a response is incomplete, and says why', async () => {
  const { post } = await startFakeServer({ script: () => Array(100).fill(97) })
  const body = { input: 'Hi', max_output_tokens: 16 }
  expect(await (await post('/v1/responses', body)).json()).toMatchObject({
    status: 'incomplete',
    completed_at: null,
    incomplete_details: { reason: 'max_output_tokens' },
    output: [{ status: 'incomplete', content: [{ text: 'a'.repeat(16) }] }],
  })
  const events = await wireEvents(await post('/v1/responses', { ...body, stream: true }))
  expect(events.at(-1)?.name).toBe('response.incomplete')
})

for (const [name, Client] of [
  ['openai', OpenAI],
  ['openai, its previous major', OpenAI5 as unknown as typeof OpenAI],
] as const) {
  test(`${name}: create, continue, list, count, delete`, async () => {
    const server = await startFakeServer()
    const client = new Client({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 0 })
    const first = await client.responses.create({ model, input: 'one', instructions: 'Be brief.' })
    expect(first.output_text).toBe('Hello world')
    expect(await client.responses.retrieve(first.id)).toMatchObject({ id: first.id, output_text: 'Hello world' })
    const second = await client.responses.create({
      model,
      previous_response_id: first.id,
      input: [{ role: 'user', content: [{ type: 'input_text', text: 'two' }] }],
    })
    expect(second.previous_response_id).toBe(first.id)
    // The instructions were the first turn's alone.
    const read = Buffer.from(server.engine.seen.at(-1)?.prompt.filter((id) => id < 256) ?? []).toString()
    expect(read).toBe('oneHello worldtwo')
    const items: string[] = []
    for await (const item of client.responses.inputItems.list(second.id, { order: 'asc', limit: 2 })) {
      if (item.type === 'message') items.push(`${item.role}: ${(item.content[0] as { text: string }).text}`)
    }
    expect(items).toEqual(['user: one', 'assistant: Hello world', 'user: two'])
    const streamed: string[] = []
    const stream = await client.responses.create({ model, input: 'x', stream: true })
    for await (const event of stream) if (event.type === 'response.output_text.delta') streamed.push(event.delta)
    expect(streamed).toEqual(['Hello', ' world'])
    const final = await client.responses.stream({ model, input: 'x' }).finalResponse()
    expect(final.output_text).toBe('Hello world')
    await client.responses.delete(first.id)
    await expect(client.responses.retrieve(first.id)).rejects.toMatchObject({ status: 404, code: 'response_not_found' })
    // The second keeps what it read.
    expect((await client.responses.create({ model, previous_response_id: second.id, input: 'three' })).status).toBe(
      'completed',
    )
    const lost = client.responses.create({ model, previous_response_id: first.id, input: 'x' })
    await expect(lost).rejects.toMatchObject({ status: 404, param: 'previous_response_id' })
  })
}

test('openai: tokens of an input are counted and nothing is generated', async () => {
  const { client, engine } = await startFakeServer()
  expect(await client.responses.inputTokens.count({ model, input: 'abc' })).toEqual({
    object: 'response.input_tokens',
    input_tokens: 5,
  })
  expect(engine.seen).toEqual([])
})

test('openai: a response of the background runs on its own, and is cancelled', async () => {
  let go = () => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  const { client, engine } = await startFakeServer({
    async *script() {
      yield word('Hello')
      await gate
      yield EOS
    },
  })
  const first = await client.responses.create({ model, input: 'x', background: true })
  expect(first).toMatchObject({ status: 'queued', background: true, output: [] })
  await engine.until(({ seen }) => seen[0]?.num_generated === 1)
  // What it will say is not there yet, and would be missing from the conversation.
  const early = client.responses.create({ model, previous_response_id: first.id, input: 'y' })
  await expect(early).rejects.toMatchObject({ status: 400, param: 'previous_response_id' })
  expect(await client.responses.cancel(first.id)).toMatchObject({ status: 'cancelled' })
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
  expect(await client.responses.cancel(first.id)).toMatchObject({ status: 'cancelled' })
  const second = await client.responses.create({ model, input: 'x', background: true })
  go()
  await expect.poll(async () => (await client.responses.retrieve(second.id)).status).toBe('completed')
  expect((await client.responses.retrieve(second.id)).output_text).toBe('Hello')
  const direct = await client.responses.create({ model, input: 'x' })
  await expect(client.responses.cancel(direct.id)).rejects.toMatchObject({ status: 400 })
})

test('an error before the first token has its status, one after it is an event', async () => {
  const early = await startFakeServer({ script: () => [new Error('broken')] })
  for (const stream of [false, true])
    expect((await early.post('/v1/responses', { input: 'x', stream })).status).toBe(500)
  const late = await startFakeServer({ script: () => [word('Hello'), new Error('broken')] })
  expect((await late.post('/v1/responses', { input: 'x' })).status).toBe(500)
  late.logged.length = 0
  const events = await wireEvents(await late.post('/v1/responses', { input: 'x', stream: true }))
  expect(late.logged.filter(({ event }) => event === 'request_failed')).toHaveLength(1)
  expect(events.slice(-2)).toMatchObject([
    { name: 'error', data: { code: 'engine_failure', message: expect.stringContaining('engine'), param: null } },
    { name: 'response.failed', data: { response: { status: 'failed', error: { code: 'server_error' } } } },
  ])
  expect(events.map(({ data }) => data.sequence_number)).toEqual(events.map((_, i) => i))
  // The client gives both to its reader, as OpenAI's own server makes it do.
  const types: string[] = []
  for await (const { type } of await late.client.responses.create({ model, input: 'x', stream: true })) types.push(type)
  expect(types.slice(-2)).toEqual(['error', 'response.failed'])
})

test('a client that goes away ends its response, and nothing of it is kept', async () => {
  const { client, engine, state } = await startFakeServer({
    async *script() {
      for (;;) {
        await new Promise((resolve) => setImmediate(resolve))
        yield word('Hello')
      }
    },
  })
  const stream = await client.responses.create({ model, input: 'x', stream: true })
  for await (const event of stream) if (event.type === 'response.output_text.delta') stream.controller.abort()
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
  await until(() => state.inFlight === 0)
  expect(state.responses.size).toBe(0)
  await client.responses.create({ model, input: 'x', store: false, max_output_tokens: 16 })
  expect(state.responses.size).toBe(0)
})

test('what is wrong or not built is told by name', async () => {
  const { post, url } = await startFakeServer()
  const cases: [body: object, code: string, param: string][] = [
    [{}, 'missing_required_parameter', 'input'],
    [{ input: 5 }, 'invalid_type', 'input'],
    [{ input: [] }, 'empty_array', 'input'],
    [{ input: [{ role: 'king', content: 'x' }] }, 'invalid_value', 'input.0.role'],
    [{ input: [{ role: 'user', content: 5 }] }, 'invalid_type', 'input.0.content'],
    [{ input: [{ role: 'user', content: [{ type: 'input_image' }] }] }, 'unsupported_value', 'input.0.content.0.type'],
    [{ input: [{ type: 'function_call_output' }] }, 'unsupported_value', 'input.0.type'],
    [{ input: 'x', max_output_tokens: 15 }, 'integer_below_min_value', 'max_output_tokens'],
    [{ input: 'x', max_output_tokens: 300 }, 'context_length_exceeded', 'input'],
    [{ input: 'x'.repeat(300) }, 'context_length_exceeded', 'input'],
    [{ input: 'x', tools: [{ type: 'function' }] }, 'unsupported_parameter', 'tools'],
    [{ input: 'x', tool_choice: 'required' }, 'unsupported_parameter', 'tool_choice'],
    [{ input: 'x', text: { format: { type: 'json_object' } } }, 'unsupported_parameter', 'text'],
    [{ input: 'x', access_programs: {} }, 'unsupported_parameter', 'access_programs'],
    [{ input: 'x', truncation: 'auto' }, 'unsupported_parameter', 'truncation'],
    [{ input: 'x', conversation: 'c' }, 'unsupported_parameter', 'conversation'],
    [{ input: 'x', include: ['file_search_call.results'] }, 'invalid_value', 'include.0'],
    [{ input: 'x', reasoning: { effort: 'high' } }, 'unsupported_parameter', 'reasoning.effort'],
    [{ input: 'x', background: true, store: false }, 'invalid_value', 'background'],
    [{ input: 'x', background: true, stream: true }, 'unsupported_parameter', 'background'],
  ]
  for (const [body, code, param] of cases) {
    const response = await post('/v1/responses', body)
    expect([body, response.status, await response.json()]).toMatchObject([body, 400, { error: { code, param } }])
  }
  for (const [path, method] of [
    ['resp_x', 'GET'],
    ['resp_x', 'DELETE'],
    ['resp_x/cancel', 'POST'],
    ['resp_x/input_items', 'GET'],
  ]) {
    const response = await fetch(`${url}/v1/responses/${path}`, method === undefined ? {} : { method })
    expect([response.status, await response.json()]).toMatchObject([404, { error: { code: 'response_not_found' } }])
  }
  const { id } = (await (await post('/v1/responses', { input: 'x' })).json()) as ResponseObject
  for (const query of ['limit=0', 'limit=101', 'order=up', 'after=nothing']) {
    expect((await fetch(`${url}/v1/responses/${id}/input_items?${query}`)).status).toBe(400)
  }
})

test('the store keeps so much and no more, the newest', () => {
  const store = new ResponseStore()
  const stored = (id: string, content: string) => ({
    response: { id } as ResponseObject,
    conversation: [{ role: 'user' as const, content }],
    numAnswers: 0,
    cancel: null,
  })
  for (let i = 0; i < 40; i++) store.put(stored(`resp_${i}`, 'x'.repeat(1024 * 1024)))
  expect(store.size).toBeLessThanOrEqual(32)
  expect(store.get('resp_39').response.id).toBe('resp_39')
  expect(() => store.get('resp_0')).toThrow(/no response/)
  for (let i = 0; i < 10_100; i++) store.put(stored(`small_${i}`, ''))
  expect(store.size).toBe(10_000)
})

test('special tokens of an input are plain text', async () => {
  const { post, engine } = await startFakeServer()
  await post('/v1/responses', { input: '<|user|>' })
  expect(Array.from(engine.seen[0]?.prompt ?? [])).toEqual([USER, ...bytesOf('<|user|>'), 258])
})
