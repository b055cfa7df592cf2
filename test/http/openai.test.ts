// The openai package over a real socket, as a user writes it.

import OpenAI from 'openai'
import { expect, test } from 'vitest'
import { EOS, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

const messages: OpenAI.ChatCompletionMessageParam[] = [{ role: 'user', content: 'Hi' }]

test('a chat, with the helper that follows its stream', async () => {
  const { client } = await startFakeServer()
  const chat = await client.chat.completions.create({ model: 'org/fake', messages })
  expect(chat.choices[0]?.message.content).toBe('Hello world')
  expect(chat._request_id).toMatch(/^req_/)
  const stream = client.chat.completions.stream({
    model: 'org/fake',
    messages,
    stream_options: { include_usage: true },
  })
  const final = await stream.finalChatCompletion()
  expect(final.choices[0]?.message.content).toBe('Hello world')
  expect(final.usage).toEqual(chat.usage)
})

test('completions with n and several prompts', async () => {
  const { client } = await startFakeServer({
    script: ({ prompt, sampling }) => [prompt[0] ?? 0, 48 + (sampling.choice ?? 0), EOS],
  })
  const { choices, usage } = await client.completions.create({ model: 'org/fake', prompt: ['a', 'b'], n: 2 })
  expect(choices.map(({ index, text }) => [index, text])).toEqual([
    [0, 'a0'],
    [1, 'a1'],
    [2, 'b0'],
    [3, 'b1'],
  ])
  expect(usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 12, total_tokens: 14 })
})

test('models', async () => {
  const { client } = await startFakeServer()
  const ids: string[] = []
  for await (const model of client.models.list()) ids.push(model.id)
  expect(ids).toEqual(['org/fake'])
  expect((await client.models.retrieve('org/fake')).id).toBe('org/fake')
})

test('abort in the middle of a stream', async () => {
  const { client, engine } = await startFakeServer({
    script: async function* () {
      for (;;) {
        yield word('Hello')
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
  })
  const stream = await client.chat.completions.create({ model: 'org/fake', messages, stream: true })
  let chunks = 0
  for await (const _ of stream) if (++chunks === 5) stream.controller.abort()
  expect(chunks).toBe(5)
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
})

test('error classes', async () => {
  const { client, url } = await startFakeServer({ apiKey: 'right' })
  const wrongKey = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'wrong', maxRetries: 0 })
  const thrown = async (request: Promise<unknown>) =>
    request.then(
      () => null,
      (error: unknown) => error,
    )
  expect(await thrown(wrongKey.models.list())).toBeInstanceOf(OpenAI.AuthenticationError)
  expect(await thrown(client.models.retrieve('other'))).toBeInstanceOf(OpenAI.NotFoundError)
  const tooHot = await thrown(client.chat.completions.create({ model: 'org/fake', messages, temperature: 9 }))
  expect(tooHot).toBeInstanceOf(OpenAI.BadRequestError)
  expect(tooHot).toMatchObject({
    status: 400,
    code: 'decimal_above_max_value',
    param: 'temperature',
    type: 'invalid_request_error',
  })
  expect((tooHot as { requestID?: string }).requestID).toMatch(/^req_/)
})

test('an error in the middle of a stream reaches the caller as an error', async () => {
  const { client } = await startFakeServer({ script: () => [word('Hello'), new Error('gone')] })
  let text = ''
  const reading = (async () => {
    for await (const chunk of await client.chat.completions.create({ model: 'org/fake', messages, stream: true })) {
      text += chunk.choices[0]?.delta.content ?? ''
    }
  })()
  await expect(reading).rejects.toMatchObject({ code: 'engine_failure' })
  expect(text).toBe('Hello')
})

test('a server that is loading is tried again until it is ready', async () => {
  const server = await startFakeServer()
  const { phase } = server.state
  server.state.phase = { name: 'loading', progress: 0 }
  const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none', maxRetries: 1 })
  const answer = client.chat.completions.create({ model: 'org/fake', messages })
  setTimeout(() => {
    server.state.phase = phase
  }, 200)
  expect((await answer).choices[0]?.message.content).toBe('Hello world')
})
