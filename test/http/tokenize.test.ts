// The tokenizer over HTTP, as vLLM's clients and lm-evaluation-harness ask for it.

import { expect, test } from 'vitest'
import { ASSISTANT, bytesOf, fakeTokenizer, USER, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

test('text → ids → text', async () => {
  const { post } = await startFakeServer()
  const ask = async (path: string, body: object) => (await post(path, body)).json()
  expect(await ask('/tokenize', { prompt: 'test', add_special_tokens: false })).toEqual({
    count: 4,
    max_model_len: 256,
    tokens: bytesOf('test'),
    token_strs: null,
  })
  expect(await ask('/tokenize', { prompt: 'é', return_token_strs: true })).toMatchObject({
    tokens: [0xc3, 0xa9],
    token_strs: ['\ufffd', '\ufffd'],
  })
  expect(await ask('/tokenize', { prompt: '' })).toMatchObject({ count: 0, tokens: [] })
  // Longer than the context is no mistake here.
  expect(await ask('/tokenize', { prompt: 'x'.repeat(5000) })).toMatchObject({ count: 5000 })
  expect(await ask('/detokenize', { tokens: [word('Hello'), word('😀'), 0xc3, 0xa9] })).toEqual({ prompt: 'Hello😀é' })
  expect(await ask('/detokenize', { tokens: [] })).toEqual({ prompt: '' })
  expect(await ask('/tokenize', { messages: [{ role: 'user', content: 'a' }] })).toMatchObject({
    tokens: [USER, 97, ASSISTANT],
  })
})

test('a chat rendered, with and without the place where the assistant begins', async () => {
  const { post, engine } = await startFakeServer()
  const messages = [
    { role: 'user', content: 'a<|user|>' },
    { role: 'assistant', content: 'b' },
  ]
  const render = async (more: object) => (await post('/v1/chat/completions/render', { messages, ...more })).json()
  expect(await render({})).toEqual({
    object: 'chat.completion.render',
    model: 'org/fake',
    prompt: '<|user|>a<|user|><|assistant|>b<|endoftext|><|assistant|>',
    // What a user writes is no control token, whatever it looks like.
    prompt_token_ids: [USER, 97, ...bytesOf('<|user|>'), ASSISTANT, 98, 256, ASSISTANT],
    num_prompt_tokens: 14,
    max_model_len: 256,
  })
  expect(await render({ add_generation_prompt: false })).toMatchObject({
    prompt: '<|user|>a<|user|><|assistant|>b<|endoftext|>',
  })
  expect(await render({ continue_final_message: true })).toMatchObject({
    prompt: '<|user|>a<|user|><|assistant|>b',
  })
  expect(engine.seen).toEqual([])
})

test('what is wrong is told', async () => {
  const { post } = await startFakeServer()
  const cases: [path: string, body: object, status: number, code: string, param: string | null][] = [
    ['/tokenize', {}, 400, 'missing_required_parameter', 'prompt'],
    ['/tokenize', { prompt: 5 }, 400, 'invalid_type', 'prompt'],
    ['/tokenize', { prompt: 'x', model: 'y' }, 404, 'model_not_found', 'model'],
    ['/tokenize', { messages: [] }, 400, 'empty_array', 'messages'],
    ['/detokenize', {}, 400, 'missing_required_parameter', 'tokens'],
    ['/detokenize', { tokens: [1.5] }, 400, 'invalid_type', 'tokens.0'],
    ['/detokenize', { tokens: [-1] }, 400, 'integer_below_min_value', 'tokens.0'],
    ['/detokenize', { tokens: [300] }, 400, 'integer_above_max_value', 'tokens'],
    ['/v1/chat/completions/render', {}, 400, 'missing_required_parameter', 'messages'],
  ]
  for (const [path, body, status, code, param] of cases) {
    const response = await post(path, body)
    expect([path, body, response.status, await response.json()]).toEqual([
      path,
      body,
      status,
      { error: expect.objectContaining({ code, param }) },
    ])
  }
})

test('tokenizer_info only for a tokenizer that adds nothing, because its readers add nothing', async () => {
  const plain = await startFakeServer()
  expect(await (await fetch(`${plain.url}/tokenizer_info`)).json()).toMatchObject({
    bos_token: null,
    eos_token: '<|endoftext|>',
    pad_token: null,
    chat_template: expect.stringContaining('messages'),
  })
  const inner = fakeTokenizer()
  const tokenizer = fakeTokenizer({
    encode: (text, options) => [...(options?.addSpecialTokens === false ? [] : [256]), ...inner.encode(text, options)],
  })
  const withBos = await startFakeServer({ model: { tokenizer } })
  const response = await fetch(`${withBos.url}/tokenizer_info`)
  expect([response.status, await response.json()]).toEqual([
    404,
    { error: expect.objectContaining({ message: expect.stringContaining('add_bos_token=True') }) },
  ])
})

test('version, and a model whose id has a slash and a revision', async () => {
  const { url } = await startFakeServer({ modelName: 'org/fake@step1000' })
  expect(await (await fetch(`${url}/version`)).json()).toEqual({ version: expect.stringMatching(/^\d+\.\d+\.\d+/) })
  for (const id of ['org/fake@step1000', 'org%2Ffake%40step1000', 'org%2ffake@step1000']) {
    expect(await (await fetch(`${url}/v1/models/${id}`)).json()).toMatchObject({ id: 'org/fake@step1000' })
  }
  for (const id of ['org/fake', 'org/fake@main', 'org', 'org/fake@step1000/x']) {
    expect((await fetch(`${url}/v1/models/${id}`)).status).toBe(404)
  }
})
