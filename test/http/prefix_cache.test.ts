// What the API tells of the prefix cache, and the salt that keeps tenants apart.

import { expect, test } from 'vitest'
import type { Script } from '../../src/engine/fake.js'
import { EOS, word } from '../generation/fake_model.js'
import { json, startFakeServer } from './fake_server.js'

const cached: Script = () => [{ token: word('Hello'), cached_tokens: 2 }, word(' world'), EOS]

test('every API says how many tokens of the prompt were cached', async () => {
  const { post, stream } = await startFakeServer({ script: cached })
  const usage = async (path: string, body: object) => (await json(await post(path, body))).usage
  expect(await usage('/v1/completions', { prompt: 'Hi' })).toMatchObject({
    prompt_tokens: 2,
    prompt_tokens_details: { cached_tokens: 2 },
  })
  const messages = [{ role: 'user', content: 'Hi' }]
  expect(await usage('/v1/chat/completions', { messages })).toMatchObject({
    prompt_tokens: 4,
    prompt_tokens_details: { cached_tokens: 2 },
  })
  expect(await usage('/v1/responses', { input: 'Hi' })).toMatchObject({
    input_tokens: 4,
    input_tokens_details: { cached_tokens: 2 },
  })
  // Anthropic's input_tokens are those that were not cached.
  const anthropic = { input_tokens: 2, cache_read_input_tokens: 2 }
  expect(await usage('/v1/messages', { messages, max_tokens: 9 })).toMatchObject(anthropic)
  const stream_options = { include_usage: true, continuous_usage_stats: true }
  const chunks = await stream('/v1/completions', { prompt: 'Hi', stream: true, stream_options })
  for (const chunk of chunks.slice(0, -1))
    expect(chunk).toMatchObject({ usage: { prompt_tokens_details: { cached_tokens: 2 } } })
})

test('each prompt counts once, whatever n is', async () => {
  const { post } = await startFakeServer({ script: cached })
  const answer = await json(await post('/v1/completions', { prompt: ['Hi', 'Ho', 'Ha'], n: 4 }))
  expect(answer.usage).toMatchObject({ prompt_tokens: 6, prompt_tokens_details: { cached_tokens: 6 } })
})

test('a salt goes down to the engine as a number: the same for the same salt, another for another, 0 for none', async () => {
  const { post, engine } = await startFakeServer()
  const salts = ['tenant a', 'tenant b', 'tenant a', undefined]
  for (const cache_salt of salts) await post('/v1/completions', { prompt: 'Hi', cache_salt })
  const [a, b, again, none] = engine.seen.map(({ sampling }) => sampling.cache_salt)
  expect(a).toBeGreaterThan(0)
  expect(a).toBeLessThanOrEqual(Number.MAX_SAFE_INTEGER)
  expect(b).toBeGreaterThan(0)
  expect(b).not.toBe(a)
  expect([again, none]).toEqual([a, 0])
  const messages = [{ role: 'user', content: 'Hi' }]
  await post('/v1/chat/completions', { messages, cache_salt: 'tenant a' })
  await post('/v1/responses', { input: 'Hi', cache_salt: 'tenant a' })
  expect(engine.seen.slice(-2).map(({ sampling }) => sampling.cache_salt)).toEqual([a, a])
})

test('a salt that is none is refused', async () => {
  const { post } = await startFakeServer()
  for (const cache_salt of ['', 7]) {
    const response = await post('/v1/completions', { prompt: 'Hi', cache_salt })
    expect(response.status).toBe(400)
    expect((await json(response)).error).toMatchObject({ param: 'cache_salt' })
  }
})
