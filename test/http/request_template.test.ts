// chat_template in a request: only where the server trusts it, and then bounded as the model's own is.

import { expect, test } from 'vitest'
import { json, startFakeServer } from './fake_server.js'

const messages = [{ role: 'user', content: 'Hello' }]
const path = '/v1/chat/completions/render'

test('chat_template is refused unless the server was started for it', async () => {
  const { post } = await startFakeServer()
  const response = await post(path, { messages, chat_template: '{{ messages[0].content }}' })
  expect(response.status).toBe(400)
  expect((await json(response)).error).toMatchObject({
    ...{ code: 'unsupported_parameter', param: 'chat_template' },
    message: expect.stringContaining('--trust-request-chat-template'),
  })
})

test('chat_template takes the place of the template of the model', async () => {
  const { post } = await startFakeServer({ trustsTemplates: true })
  const chat_template = '{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ end }}{% endfor %}'
  const chat_template_kwargs = { end: '!' }
  const rendered = await post(path, { messages, chat_template, chat_template_kwargs })
  expect(await rendered.json()).toMatchObject({ prompt: '<user>Hello!' })
  expect((await post('/v1/chat/completions', { messages, chat_template })).status).toBe(200)
  // The next request has the model's own again.
  expect(await (await post(path, { messages })).json()).not.toMatchObject({ prompt: '<user>Hello' })
})

test.each([
  ['no Jinja', '{% for', "'chat_template' cannot be used: "],
  ['too deep', `{{ ${'('.repeat(30_000)}1${')'.repeat(30_000)} }}`, "'chat_template' cannot be used: "],
  ['without an end', '{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}', 'was stopped'],
  ['what it refuses itself', "{{ raise_exception('No.') }}", "The request's chat template refuses these messages: No."],
])('a chat_template that cannot be used: %s', async (_, chat_template, message) => {
  const { post } = await startFakeServer({ trustsTemplates: true })
  const response = await post(path, { messages, chat_template })
  expect([response.status, (await json(response)).error]).toMatchObject([
    400,
    { code: 'chat_template_failed', message: expect.stringContaining(message) },
  ])
})
