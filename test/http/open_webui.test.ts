// What Open WebUI asks of a server that speaks OpenAI, in its order and with its headers and fields (its backend's routers/openai.py).

import { expect, test } from 'vitest'
import { EOS, word } from '../generation/fake_model.js'
import { type Answer, startFakeServer } from './fake_server.js'

const headers = {
  authorization: 'Bearer secret',
  'content-type': 'application/json',
  // Where the forwarding of users is on; names are percent-encoded.
  'x-openwebui-user-name': 'Ada%20L%C3%B6v',
  'x-openwebui-user-id': 'b0b7',
  'x-openwebui-user-email': 'ada@example.org',
  'x-openwebui-user-role': 'admin',
  'x-openwebui-chat-id': 'c1',
}

test('models, a chat as a stream, its title, embeddings; leaving a chat ends it', async () => {
  let script: () => Iterable<number> | AsyncIterable<number> = () => [word('Hello'), word(' world'), EOS]
  const { url, engine } = await startFakeServer({ apiKey: 'secret', script: () => script() })
  const base = `${url}/v1`
  const post = (path: string, body: object, signal: AbortSignal | null = null) =>
    fetch(`${base}${path}`, { method: 'POST', headers, body: JSON.stringify(body), signal })

  const models = (await (await fetch(`${base}/models`, { headers })).json()) as { data: { id: string }[] }
  const model = models.data[0]?.id
  expect(models).toMatchObject({ object: 'list', data: [{ id: 'org/fake', object: 'model' }] })

  const messages = [
    { role: 'system', content: 'Be kind.' },
    { role: 'user', content: 'Hi' },
    { role: 'assistant', content: 'Hello' },
    { role: 'user', content: [{ type: 'text', text: 'Go on' }] },
  ]
  const chat = {
    ...{ stream: true, model, messages, stream_options: { include_usage: true } },
    // Of a model's settings, and what the page leaves in the body.
    ...{ temperature: 0.8, top_p: 0.9, max_tokens: 50, frequency_penalty: 0, seed: 42, stop: ['\n\n\n'] },
    ...{ logit_bias: { 104: -100 }, reasoning: { effort: 'low' }, session_id: 's1', chat_id: 'c1', id: 'm1' },
    ...{ background_tasks: { title_generation: true }, features: { web_search: false }, variables: {}, params: {} },
  }
  const stream = await post('/chat/completions', chat)
  expect([stream.status, stream.headers.get('content-type')]).toEqual([200, 'text/event-stream; charset=utf-8'])
  const lines = (await stream.text()).split('\n').filter((line) => line.startsWith('data: '))
  expect(lines.at(-1)).toBe('data: [DONE]')
  const chunks = lines.slice(0, -1).map((line) => JSON.parse(line.slice(6)))
  expect(chunks.map(({ choices }) => choices[0]?.delta?.content ?? '').join('')).toBe('Hello world')
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 3 } })

  const title = { model, messages: [{ role: 'user', content: 'Title?' }], stream: false, max_completion_tokens: 100 }
  const answer = (await (await post('/chat/completions', title)).json()) as Answer
  expect(answer.choices[0].message.content).toBe('Hello world')
  expect((await post('/embeddings', { input: ['a', 'b'], model })).headers.get('content-type')).toContain('json')

  // Its page shows error.message.
  const wrong = await post('/chat/completions', { ...chat, model: 'gone' })
  expect([wrong.status, ((await wrong.json()) as Answer).error.message]).toEqual([
    404,
    "The model 'gone' does not exist. This server has 'org/fake'.",
  ])
  expect((await fetch(`${base}/models`)).status).toBe(401)

  script = async function* () {
    yield word('Hello')
    await new Promise(() => {})
  }
  const leave = new AbortController()
  const left = await post('/chat/completions', chat, leave.signal)
  await left.body?.getReader().read()
  leave.abort()
  await engine.until(({ seen }) => seen.at(-1)?.state === 'cancelled')
})
