// Embeddings, scores and rankings: transformers' numbers, and the wire.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import OpenAI from 'openai'
import OpenAI5 from 'openai-5'
import { describe, expect, test } from 'vitest'
import type { Script } from '../../src/engine/fake.js'
import type { EmbeddingAnswer } from '../../src/http/embeddings.js'
import type { RerankAnswer, ScoreAnswer } from '../../src/http/relevance.js'
import { bytesOf } from '../generation/fake_model.js'
import { fixture } from '../models/scratch.js'
import { startFakeServer, until } from './fake_server.js'
import { startRealServer } from './real_server.js'

const golden: {
  query: string
  texts: string[]
  mean: number[][]
  last: number[][]
  likelihood: number[]
  yes_no: number[]
} = JSON.parse(readFileSync(new URL('relevance_goldens.json', import.meta.url), 'utf8'))

const tales = fileURLToPath(new URL('../../models/tales', import.meta.url))

async function ask<T>(url: string, path: string, body: object): Promise<T> {
  const response = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  expect(response.status).toBe(200)
  return (await response.json()) as T
}

/** The largest difference of two lists of numbers. */
function distance(a: readonly number[], b: readonly number[]): number {
  expect(a).toHaveLength(b.length)
  return Math.max(...a.map((x, i) => Math.abs(x - (b[i] ?? Number.NaN))))
}

describe("transformers' numbers", () => {
  test.each(['mean', 'last'] as const)('embeddings, %s', async (pooling) => {
    const url = await startRealServer(tales)
    const { data, usage } = await ask<EmbeddingAnswer>(url, '/v1/embeddings', { input: golden.texts, pooling })
    for (const [i, { embedding, index }] of data.entries()) {
      expect(index).toBe(i)
      expect(distance(embedding as number[], golden[pooling][i] ?? [])).toBeLessThan(2e-6)
    }
    expect(usage.prompt_tokens).toBe(usage.total_tokens)
    // Fewer dimensions are the first ones, with length 1 again.
    const dimensions = 7
    const cut = await ask<EmbeddingAnswer>(url, '/v1/embeddings', { input: golden.texts[0], pooling, dimensions })
    const whole = (golden[pooling][0] ?? []).slice(0, dimensions)
    const length = Math.hypot(...whole)
    expect(
      distance(
        cut.data[0]?.embedding as number[],
        whole.map((x) => x / length),
      ),
    ).toBeLessThan(1e-5)
    // Token ids are the same as their text, and one input is one of several.
    const { tokens } = await ask<{ tokens: number[] }>(url, '/tokenize', { prompt: golden.texts[0] })
    for (const input of [tokens, [tokens]]) {
      const same = await ask<EmbeddingAnswer>(url, '/v1/embeddings', { input, pooling })
      expect(same.data).toEqual(data.slice(0, 1))
      expect(same.usage).toEqual({ prompt_tokens: tokens.length, total_tokens: tokens.length })
    }
    const raw = await ask<EmbeddingAnswer>(url, '/v1/embeddings', { input: golden.texts[0], pooling, normalize: false })
    const rawLength = Math.hypot(...((raw.data[0]?.embedding ?? []) as number[]))
    expect(rawLength).toBeGreaterThan(1.1)
  })

  test.each(['likelihood', 'yes_no'] as const)('scores and rankings, %s', async (method) => {
    const url = await startRealServer(tales)
    const body = { text_1: golden.query, text_2: golden.texts, method }
    const { data, usage, ...rest } = await ask<ScoreAnswer>(url, '/v1/score', body)
    expect(rest).toMatchObject({ object: 'list', model: 'tales', id: expect.stringMatching(/^score-[0-9a-f]{32}$/) })
    for (const [i, { score, index }] of data.entries()) {
      expect(index).toBe(i)
      expect(Math.abs(score / (golden[method][i] ?? 0) - 1)).toBeLessThan(1e-5)
    }
    const best = golden.texts.map((_, i) => i).sort((a, b) => (golden[method][b] ?? 0) - (golden[method][a] ?? 0))
    const documents = golden.texts.map((text, i) => (i % 2 === 0 ? text : { text }))
    const ranked = await ask<RerankAnswer>(url, '/v1/rerank', { query: golden.query, documents, method, top_n: 3 })
    expect(ranked.results).toEqual(
      best.slice(0, 3).map((index) => ({
        index,
        relevance_score: data[index]?.score,
        document: { text: golden.texts[index] },
      })),
    )
    expect(ranked.usage).toEqual(usage)
    const pairs = { text_1: golden.texts.map(() => golden.query), text_2: golden.texts, method }
    expect((await ask<ScoreAnswer>(url, '/v1/score', pairs)).data).toEqual(data)
  })
})

const pooled: Script = ({ prompt }) => [{ token: 0, pooled: Float32Array.of(prompt.length, 0, -4, 0, 0, 0, 0, 0) }]

test.each([
  ['openai', OpenAI],
  ['openai, its previous major', OpenAI5 as unknown as typeof OpenAI],
])('%s: it asks for base64 and gives numbers', async (_, Client) => {
  const { url } = await startFakeServer({ script: pooled })
  const client = new Client({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  const answer = await client.embeddings.create({ model: 'org/fake', input: ['abc', 'abcd'] })
  expect(answer).toMatchObject({ object: 'list', model: 'org/fake', usage: { prompt_tokens: 7, total_tokens: 7 } })
  const rounded = (x: number) => Math.fround(x)
  expect(answer.data.map(({ embedding }) => [...embedding])).toEqual([
    [rounded(3 / 5), 0, rounded(-4 / 5), 0, 0, 0, 0, 0],
    [rounded(4 / Math.hypot(4, 4)), 0, rounded(-4 / Math.hypot(4, 4)), 0, 0, 0, 0, 0],
  ])
  const floats = await client.embeddings.create({ model: 'org/fake', input: 'abc', encoding_format: 'float' })
  expect(floats.data[0]?.embedding).toEqual([...(answer.data[0]?.embedding ?? [])])
})

test('what a stranger’s text holds is no special token, and no place of the template', async () => {
  const { url, engine } = await startFakeServer({
    script: ({ prompt }) => [
      {
        token: 0,
        prompt: {
          logprobs: new Float32Array(prompt.length - 1).fill(-1),
          ranks: new Int32Array(prompt.length - 1),
          top_tokens: new Int32Array(),
          top_logprobs: new Float32Array(),
        },
      },
    ],
  })
  const documents = ['a<|user|>b{query}']
  const ranked = await ask<RerankAnswer>(url, '/v1/rerank', {
    query: 'Why?',
    documents,
    template: '<|user|>{document}: {query}',
  })
  expect(ranked.results).toEqual([{ index: 0, relevance_score: Math.exp(-1), document: { text: documents[0] } }])
  expect([...(engine.seen[0]?.prompt ?? [])]).toEqual([257, ...bytesOf('a<|user|>b{query}: Why?')])
  const bare = await ask<RerankAnswer>(url, '/v1/rerank', { query: 'x', documents, return_documents: false })
  expect(bare.results).toEqual([{ index: 0, relevance_score: Math.exp(-1) }])
})

test('mistakes are told by name', async () => {
  const { post } = await startFakeServer({ script: pooled })
  const score = { text_1: 'a', text_2: ['b', 'c'] }
  const rerank = { query: 'a', documents: ['b'] }
  const cases: [path: string, body: object, code: string, param: string][] = [
    ['embeddings', {}, 'missing_required_parameter', 'input'],
    ['embeddings', { input: '' }, 'empty_string', 'input'],
    ['embeddings', { input: ['a', ''] }, 'empty_string', 'input.1'],
    ['embeddings', { input: [] }, 'empty_array', 'input'],
    ['embeddings', { input: [[]] }, 'invalid_value', 'input'],
    ['embeddings', { input: 5 }, 'invalid_type', 'input'],
    ['embeddings', { input: [300] }, 'integer_above_max_value', 'input'],
    ['embeddings', { input: Array(2049).fill('a') }, 'array_above_max_length', 'input'],
    ['embeddings', { input: 'x'.repeat(257) }, 'context_length_exceeded', 'input'],
    ['embeddings', { input: 'a', dimensions: 9 }, 'integer_above_max_value', 'dimensions'],
    ['embeddings', { input: 'a', dimensions: 0 }, 'integer_below_min_value', 'dimensions'],
    ['embeddings', { input: 'a', encoding_format: 'int8' }, 'invalid_value', 'encoding_format'],
    ['embeddings', { input: 'a', pooling: 'cls' }, 'invalid_value', 'pooling'],
    ['embeddings', { input: 'a', messages: [] }, 'unsupported_parameter', 'messages'],
    ['embeddings', { input: 'a', model: 'x' }, 'model_not_found', 'model'],
    ['score', { text_1: 'a' }, 'missing_required_parameter', 'text_2'],
    ['score', { ...score, text_1: ['a', 'b', 'c'] }, 'invalid_value', 'text_1'],
    ['score', { ...score, text_2: ['b', 5] }, 'invalid_type', 'text_2.1'],
    ['score', { ...score, text_2: [] }, 'empty_array', 'text_2'],
    ['score', { ...score, method: 'cosine' }, 'invalid_value', 'method'],
    ['score', { ...score, template: 'x {query}' }, 'invalid_value', 'template'],
    ['score', { ...score, template: '{query} {document}' }, 'invalid_value', 'template'],
    ['score', { ...score, template: '{document} {query} {query}' }, 'invalid_value', 'template'],
    ['score', { ...score, method: 'yes_no', yes: 'nyes', no: 'no' }, 'invalid_value', 'yes'],
    ['score', { ...score, text_2: 'x'.repeat(300) }, 'context_length_exceeded', 'documents'],
    ['rerank', { documents: ['b'] }, 'missing_required_parameter', 'query'],
    ['rerank', { ...rerank, documents: [{ title: 'b' }] }, 'invalid_type', 'documents.0'],
    ['rerank', { ...rerank, top_n: 0 }, 'integer_below_min_value', 'top_n'],
    ['rerank', { ...rerank, max_tokens_per_doc: 5 }, 'unsupported_parameter', 'max_tokens_per_doc'],
  ]
  for (const [path, body, code, param] of cases) {
    const response = await post(`/v1/${path}`, body)
    expect([path, body, await response.json()]).toMatchObject([path, body, { error: { code, param } }])
    expect(response.status).toBe(code === 'model_not_found' ? 404 : 400)
  }
})

test('truncate_prompt_tokens keeps the end of an input', async () => {
  const { url, engine } = await startFakeServer({ script: pooled })
  await ask(url, '/v1/embeddings', { input: ['abcdef', bytesOf('xyz')], truncate_prompt_tokens: 2 })
  await ask(url, '/v1/embeddings', { input: 'x'.repeat(300), truncate_prompt_tokens: -1 })
  expect(engine.seen.map(({ prompt }) => prompt.length)).toEqual([2, 2, 256])
  expect(Buffer.from(engine.seen[0]?.prompt ?? []).toString()).toBe('ef')
})

test('a client that goes away ends its requests in the engine', async () => {
  const { url, engine, logged } = await startFakeServer({
    script: async function* () {
      await new Promise(() => {})
      yield 0
    },
  })
  const controller = new AbortController()
  const { signal } = controller
  const body = JSON.stringify({ input: ['a', 'b'] })
  const headers = { 'content-type': 'application/json' }
  const answer = fetch(`${url}/v1/embeddings`, { method: 'POST', headers, body, signal })
  await engine.until(({ seen }) => seen.length === 2)
  controller.abort()
  await expect(answer).rejects.toMatchObject({ name: 'AbortError' })
  await engine.until(({ seen }) => seen.every(({ state }) => state === 'cancelled'))
  await until(() => logged.some(({ event }) => event === 'request'))
  expect(logged.filter(({ level }) => level === 'error')).toEqual([])
  expect(logged.find(({ event }) => event === 'request')).toMatchObject({ status: 499 })
})

test('an encoder-decoder has none of these', async () => {
  const url = await startRealServer(fixture('t5-v1.1'))
  for (const [path, body] of [
    ['embeddings', { input: [5] }],
    ['score', { text_1: 'a', text_2: 'b' }],
  ] as const) {
    const response = await fetch(`${url}/v1/${path}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    expect([response.status, await response.json()]).toMatchObject([
      400,
      { error: { code: 'unsupported_value', param: 'model' } },
    ])
  }
})

test('a long list takes its turn a few at a time, and each answer stands at its place', async () => {
  let most = 0
  const server = await startFakeServer({
    script: async function* ({ prompt }) {
      most = Math.max(most, server.engine.seen.filter(({ state }) => state === 'running').length)
      await new Promise((resolve) => setImmediate(resolve))
      yield { token: 0, pooled: Float32Array.of(prompt.length) }
    },
  })
  const input = Array.from({ length: 200 }, (_, i) => 'x'.repeat((i % 97) + 1))
  const { data } = await ask<EmbeddingAnswer>(server.url, '/v1/embeddings', { input, normalize: false })
  expect(data.map(({ embedding }) => embedding)).toEqual(input.map(({ length }) => [length]))
  expect(most).toBe(64)
})
