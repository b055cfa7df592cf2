// A model on two ranks through HTTP: the same answers, and what clients and probes are told when a rank stops.

import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startRealServer } from './real_server.js'

const tales = fileURLToPath(new URL('../../models/tales', import.meta.url))

const post = (url: string, body: object) =>
  fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ temperature: 0, max_tokens: 24, ...body }),
  })

const status = async (url: string) => (await fetch(url)).status

test('two ranks answer as one does, whole and as a stream, and say what they are', async () => {
  const text = async (url: string, prompt: string) => {
    const { choices } = (await (await post(url, { prompt })).json()) as { choices: { text: string }[] }
    return choices[0]?.text
  }
  const one = await startRealServer(tales)
  const two = await startRealServer(tales, { tensor_parallel_size: 2 })
  const prompts = ['Once upon a time', 'The king', 'A ship']
  const expected = await Promise.all(prompts.map((prompt) => text(one, prompt)))
  expect(await Promise.all(prompts.map((prompt) => text(two, prompt)))).toEqual(expected)
  const events = await (await post(two, { prompt: 'The king', stream: true })).text()
  const pieces = [...events.matchAll(/^data: (\{.*\})$/gm)].map(
    ([, data = '']) => JSON.parse(data).choices[0]?.text ?? '',
  )
  expect(pieces.join('')).toBe(expected[1])
  expect(await (await fetch(`${two}/metrics`)).text()).toMatch(/parley_build_info\{.*tensor_parallel_size="2"\} 1/)
})

test('when a rank stops, running requests get an error and the server is neither ready nor alive', async () => {
  const url = await startRealServer(tales, {
    tensor_parallel_size: 3,
    rank_stops_in_step: 6,
    rank_stopped_after_ms: 160,
  })
  expect(await status(`${url}/health/ready`)).toBe(200)
  const [whole, stream] = await Promise.all([
    post(url, { prompt: 'Once', max_tokens: 200 }),
    post(url, { prompt: 'Once', max_tokens: 200, stream: true }).then((response) => response.text()),
  ])
  expect([whole.status, await whole.json()]).toMatchObject([
    500,
    { error: { type: 'server_error', code: 'engine_failure' } },
  ])
  expect(stream).toMatch(/"code":"engine_failure"/)
  expect([await status(`${url}/health/ready`), await status(`${url}/health/live`)]).toEqual([503, 503])
  expect((await post(url, { prompt: 'Once' })).status).toBe(500)
})
