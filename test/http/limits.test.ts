// Bodies that only want to be expensive: refused before they cost anything.

import { request } from 'node:http'
import { expect, test } from 'vitest'
import { startFakeServer } from './fake_server.js'

/** Sends a body of `size` bytes as fast as the server takes it, and notes what comes back. */
function upload(
  port: number,
  size: number,
  declared: boolean,
): Promise<{ status: number; code: string; sent: number }> {
  return new Promise((resolve, reject) => {
    const block = Buffer.alloc(256 * 1024, '[')
    let sent = 0
    const sending = request({
      port,
      host: '127.0.0.1',
      method: 'POST',
      path: '/v1/completions',
      headers: { 'content-type': 'application/json', ...(declared ? { 'content-length': size } : {}) },
    })
    sending.on('response', (response) => {
      let text = ''
      response.on('data', (data) => {
        text += data
      })
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, code: JSON.parse(text).error.code, sent })
        sending.destroy()
      })
    })
    sending.on('error', reject)
    const send = () => {
      if (sending.destroyed || sent >= size) return
      sent += block.length
      if (sending.write(block)) setImmediate(send)
      else sending.once('drain', send)
    }
    send()
  })
}

test.each([
  ['of a length that it declares', true],
  ['of a length that it does not declare', false],
])('a body of 100 MB %s is refused, and never held', async (_, declared) => {
  const { port } = await startFakeServer()
  const before = process.memoryUsage().arrayBuffers
  const { status, code, sent } = await upload(port, 100e6, declared)
  expect([status, code]).toEqual([413, 'request_too_large'])
  // The answer comes while the body is still on its way.
  expect(sent).toBeLessThan(50e6)
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64e6)
})

test('lists of the largest size that a body can have are refused by their length', async () => {
  const { post, engine } = await startFakeServer()
  const many = (count: number, item: unknown) => Array(count).fill(item)
  const cases: [field: string, value: unknown, code: string][] = [
    ['prompt', many(1_000_000, 1), 'context_length_exceeded'],
    ['prompt', many(1_000_000, 'x'), 'array_above_max_length'],
    ['prompt', many(1_000_000, [1]), 'array_above_max_length'],
    ['stop', many(1_000_000, 'x'), 'array_above_max_length'],
    ['stop_token_ids', many(1_000_000, 1), 'array_above_max_length'],
    ['bad_words', many(1_000_000, 'x'), 'array_above_max_length'],
    ['logit_bias', Object.fromEntries(Array.from({ length: 300_000 }, (_, id) => [id, 1])), 'array_above_max_length'],
    ['unknown', Object.fromEntries(Array.from({ length: 2049 }, (_, i) => [`k${i}`, 1])), 'array_above_max_length'],
    ['user', '"{[:,\\'.repeat(700_000), 'none'],
  ]
  for (const [field, value, code] of cases) {
    const response = await post('/v1/completions', { prompt: 'x', [field]: value })
    const { error } = (await response.json()) as { error?: { code: string; message: string } }
    expect([field, error?.code ?? 'none']).toEqual([field, code])
    expect(error?.message.length ?? 0).toBeLessThan(400)
  }
  expect(engine.seen.length).toBe(1)
})
