// The OpenAPI document says what the server takes and gives.

import { expect, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import type { ErrorBody } from '../../src/errors.js'
import type { Batch } from '../../src/http/batch_runner.js'
import type { ChatAnswer, ChatChunk } from '../../src/http/chat.js'
import type { CompletionAnswer, CompletionChunk } from '../../src/http/completions.js'
import type { EmbeddingAnswer } from '../../src/http/embeddings.js'
import type { StoredFile } from '../../src/http/file_store.js'
import type { Message } from '../../src/http/messages.js'
import * as answers from '../../src/http/openapi/answers.js'
import type { DocumentOperation, JsonSchema, OpenApiDocument } from '../../src/http/openapi/document.js'
import { operations } from '../../src/http/openapi/operations.js'
import type { RerankAnswer, ScoreAnswer } from '../../src/http/relevance.js'
import type { ResponseObject } from '../../src/http/response_shapes.js'
import { routes } from '../../src/http/routes.js'
import { EOS, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

test('the types of answers are those of the document', () => {
  expectTypeOf<CompletionAnswer>().toExtend<z.infer<typeof answers.completionAnswer>>()
  expectTypeOf<CompletionChunk>().toExtend<z.infer<typeof answers.completionChunk>>()
  expectTypeOf<ChatAnswer>().toExtend<z.infer<typeof answers.chatAnswer>>()
  expectTypeOf<ChatChunk>().toExtend<z.infer<typeof answers.chatChunk>>()
  expectTypeOf<EmbeddingAnswer>().toExtend<z.infer<typeof answers.embeddingAnswer>>()
  expectTypeOf<ScoreAnswer>().toExtend<z.infer<typeof answers.scoreAnswer>>()
  expectTypeOf<RerankAnswer>().toExtend<z.infer<typeof answers.rerankAnswer>>()
  expectTypeOf<ResponseObject>().toExtend<z.infer<typeof answers.responseAnswer>>()
  expectTypeOf<Message>().toExtend<z.infer<typeof answers.messageAnswer>>()
  expectTypeOf<StoredFile>().toExtend<z.infer<typeof answers.fileAnswer>>()
  expectTypeOf<Batch>().toExtend<z.infer<typeof answers.batchAnswer>>()
  expectTypeOf<ErrorBody>().toExtend<z.infer<typeof answers.errorAnswer>>()
})

/** A schema that says something. */
function saysSomething({ type, anyOf, enum: values, const: value }: JsonSchema): boolean {
  return type !== undefined || anyOf !== undefined || values !== undefined || value !== undefined
}

test('every route is in it, and every field of a body has a type and a meaning', async () => {
  const { url } = await startFakeServer({ apiKey: 'secret' })
  const response = await fetch(`${url}/openapi.json`) // without a key
  const { openapi, paths } = (await response.json()) as OpenApiDocument
  expect(openapi).toBe('3.1.0')
  const found = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  )
  expect(found).toEqual(routes.map(({ method, path }) => `${method} ${path.replace(/:(\w+)(\{.*\})?/, '{$1}')}`))
  expect(Object.keys(operations)).toHaveLength(routes.length)
  const bodies = Object.values(paths).flatMap((methods) =>
    Object.values(methods).flatMap(({ requestBody }) => requestBody?.content['application/json']?.schema ?? []),
  )
  expect(bodies.length).toBeGreaterThan(10)
  for (const { properties = {} } of bodies) {
    for (const [name, property] of Object.entries(properties)) {
      expect([name, saysSomething(property), typeof property.description]).toEqual([name, true, 'string'])
    }
  }
  const chat = paths['/v1/chat/completions']?.post as DocumentOperation
  expect(chat.requestBody?.content['application/json']?.schema).toMatchObject({
    required: ['messages'],
    properties: { temperature: { type: 'number', minimum: 0, maximum: 2 }, stop: { anyOf: [{ type: 'string' }, {}] } },
  })
  expect(chat.description).toContain('tools')
  expect(JSON.stringify(chat)).not.toContain('"additionalProperties":false')
  expect(JSON.stringify(paths)).not.toContain('"prefixItems":[]') // which validators of OpenAPI refuse
})

test('/docs holds all of it, and nothing from elsewhere', async () => {
  const { url } = await startFakeServer({ apiKey: 'secret' })
  const response = await fetch(`${url}/docs`)
  expect(response.headers.get('content-type')).toMatch(/^text\/html/)
  const page = await response.text()
  for (const { method, path } of routes) {
    expect(page).toContain(`<h2><b>${method}</b> ${path.replace(/:(\w+)(\{.*\})?/, '{$1}')}</h2>`)
  }
  expect(page).toContain('<code>temperature</code>')
  expect(page).not.toMatch(/<script|https?:|@import|url\(/)
})

test('real answers have the shapes of the document, and no other keys', async () => {
  const { post, stream, url } = await startFakeServer({
    script: ({ prompt }) => [
      {
        token: word('Hello'),
        logprob: -1,
        top: [{ token: 97, logprob: -1 }],
        pooled: Float32Array.of(1, 2, 3),
        prompt: {
          logprobs: new Float32Array(prompt.length - 1),
          ranks: new Int32Array(prompt.length - 1),
          top_tokens: new Int32Array(),
          top_logprobs: new Float32Array(),
        },
      },
      { token: EOS, logprob: -1 },
    ],
  })
  const messages = [{ role: 'user', content: 'a' }]
  const completion = { prompt: 'ab', logprobs: 1, echo: true, return_token_ids: true, service_tier: 'auto' }
  const chat = { messages, logprobs: true, top_logprobs: 1, return_token_ids: true }
  const asked: [path: string, body: object, answer: z.ZodType][] = [
    ['/v1/completions', { ...completion, prompt_logprobs: 0 }, answers.completionAnswer],
    ['/v1/chat/completions', { ...chat, prompt_logprobs: 0, stop_token_ids: [EOS] }, answers.chatAnswer],
    ['/v1/chat/completions/render', chat, answers.renderAnswer],
    ['/v1/embeddings', { input: 'a' }, answers.embeddingAnswer],
    ['/v1/embeddings', { input: 'a', encoding_format: 'base64' }, answers.embeddingAnswer],
    ['/v1/score', { text_1: 'a', text_2: 'b' }, answers.scoreAnswer],
    ['/v1/rerank', { query: 'a', documents: ['b'] }, answers.rerankAnswer],
    ['/v1/responses', { input: 'a', include: ['message.output_text.logprobs'] }, answers.responseAnswer],
    ['/v1/responses/input_tokens', { input: 'a' }, answers.inputTokensAnswer],
    ['/v1/messages', { messages, max_tokens: 5 }, answers.messageAnswer],
    ['/v1/messages/count_tokens', { messages }, answers.countAnswer],
    ['/v1/messages', { messages: 5 }, answers.anthropicErrorAnswer],
    ['/tokenize', { prompt: 'a', return_token_strs: true }, answers.tokenizeAnswer],
    ['/detokenize', { tokens: [97] }, answers.detokenizeAnswer],
    ['/v1/completions', { prompt: 5 }, answers.errorAnswer],
  ]
  for (const [path, body, answer] of asked) {
    const found = await (await post(path, body)).json()
    expect([path, answer.safeParse(found).error?.issues]).toEqual([path, undefined])
  }
  for (const [path, body, chunk] of [
    ['/v1/completions', completion, answers.completionChunk],
    ['/v1/chat/completions', { ...chat, stream_options: { include_usage: true } }, answers.chatChunk],
  ] as const) {
    for (const found of (await stream(path, body)).slice(0, -1)) {
      expect([path, chunk.safeParse(found).error?.issues]).toEqual([path, undefined])
    }
  }
  for (const [path, body, event] of [
    ['/v1/responses', { input: 'a', include: ['message.output_text.logprobs'] }, answers.responseEvent],
    ['/v1/messages', { messages, max_tokens: 5 }, answers.messageEvent],
  ] as const) {
    const text = await (await post(path, { ...body, stream: true })).text()
    const found = [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => JSON.parse(data))
    expect(found.length).toBeGreaterThan(5)
    for (const one of found)
      expect([path, one.type, event.safeParse(one).error?.issues]).toEqual([path, one.type, undefined])
  }
  for (const [path, answer] of [
    ['/v1/models', answers.modelsAnswer],
    ['/v1/models/org/fake', answers.modelAnswer],
    ['/version', answers.versionAnswer],
    ['/health', answers.statusAnswer],
    ['/health/live', answers.statusAnswer],
  ] as const) {
    const found = await (await fetch(url + path)).json()
    expect([path, answer.safeParse(found).error?.issues]).toEqual([path, undefined])
  }
})

test('a list of files and a batch have their shapes too', () => {
  const file = {
    id: 'file-1',
    object: 'file',
    bytes: 1,
    created_at: 1,
    filename: 'a',
    purpose: 'batch',
    status: 'processed',
  }
  const page = { object: 'list', data: [file], first_id: 'file-1', last_id: 'file-1', has_more: false }
  expect(answers.listOf(answers.fileAnswer).safeParse(page).success).toBe(true)
  expect(z.toJSONSchema(answers.batchAnswer).required).toContain('request_counts')
})
