// The program as a user starts it: a process, the bundled model, real sockets, the openai package.

import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import OpenAI from 'openai'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { SocketClient } from '../http/socket_client.js'
import { Server } from './server.js'

const root = fileURLToPath(new URL('../..', import.meta.url))

describe('the bundled model', () => {
  let server: Server
  let url: string
  let client: OpenAI
  beforeAll(async () => {
    server = Server.start('--port', '0')
    url = await server.ready()
    client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
  })
  afterAll(() => server.stop())

  /** Running, waiting, used pages: all 0 when nothing is left behind. */
  async function busy(): Promise<number> {
    const text = await (await fetch(`${url}/metrics`)).text()
    const value = (name: string) => Number(new RegExp(`^vllm:${name}{.*} (.*)$`, 'm').exec(text)?.[1])
    return value('num_requests_running') + value('num_requests_waiting') + value('kv_cache_usage_perc')
  }

  test('is listed', async () => {
    const ids: string[] = []
    for await (const model of client.models.list()) ids.push(model.id)
    expect(ids).toEqual(['tales'])
    expect(await client.models.retrieve('tales')).toMatchObject({ id: 'tales', object: 'model' })
  })

  test('chats, and says the same as a stream', async () => {
    const request = {
      model: 'tales',
      messages: [{ role: 'user' as const, content: 'Tell me a story about a king.' }],
      max_tokens: 60,
      seed: 1,
    }
    const whole = await client.chat.completions.create(request)
    const text = whole.choices[0]?.message.content ?? ''
    expect(text.length).toBeGreaterThan(40)
    let streamed = ''
    let finish: string | null = null
    for await (const chunk of await client.chat.completions.create({ ...request, stream: true })) {
      streamed += chunk.choices[0]?.delta.content ?? ''
      finish = chunk.choices[0]?.finish_reason ?? finish
    }
    expect(streamed).toBe(text)
    expect(finish).toBe(whole.choices[0]?.finish_reason)
  })

  test('completes 16 prompts at once as it completes each alone', async () => {
    const request = (i: number) => ({
      model: 'tales',
      prompt: `Once upon a time there were ${i} `,
      max_tokens: 40,
      temperature: 0,
      logprobs: 1,
    })
    const together = await Promise.all(Array.from({ length: 16 }, (_, i) => client.completions.create(request(i))))
    for (const [i, answer] of together.entries()) {
      const alone = await client.completions.create(request(i))
      expect(answer.choices).toEqual(alone.choices)
    }
    await expect.poll(busy).toBe(0)
  })

  test('stops when the client goes away', async () => {
    const controller = new AbortController()
    const stream = await client.completions.create(
      { model: 'tales', prompt: 'Once', max_tokens: 900, stream: true, ...{ ignore_eos: true } },
      { signal: controller.signal },
    )
    let chunks = 0
    for await (const _ of stream) if (++chunks === 3) controller.abort()
    expect(chunks).toBeLessThan(900)
    await expect.poll(busy).toBe(0)
  })

  test('answers many conversations over one WebSocket, and frees all when it ends', async () => {
    const socket = await SocketClient.connect(url, '/v1/stream')
    const params = { messages: [{ role: 'user', content: 'Tell me a story.' }], max_tokens: 30, temperature: 0 }
    const alone = await client.chat.completions.create({ model: 'tales', ...params } as never)
    for (let id = 0; id < 4; id++) socket.send({ id, method: 'chat.completions', params })
    const texts = ['', '', '', '']
    for (let running = 4; running > 0; ) {
      const { id, chunk, done } = await socket.next()
      if (done) running--
      else texts[id] += chunk.choices[0]?.delta.content ?? ''
    }
    expect(texts).toEqual(texts.map(() => (alone as OpenAI.ChatCompletion).choices[0]?.message.content))
    for (let id = 0; id < 4; id++) {
      socket.send({
        id,
        method: 'completions',
        params: { prompt: 'Once', max_tokens: 900, ignore_eos: true },
        credit: 1,
      })
    }
    for (let id = 0; id < 4; id++) await socket.next()
    socket.socket.terminate()
    await expect.poll(busy).toBe(0)
  })

  test('answers mistakes with the error classes of the openai package', async () => {
    const create = (change: object) => client.completions.create({ model: 'tales', prompt: 'a', ...change })
    await expect(create({ model: 'gpt-9' })).rejects.toMatchObject({
      constructor: OpenAI.NotFoundError,
      code: 'model_not_found',
    })
    await expect(create({ temperature: 9 })).rejects.toMatchObject({
      constructor: OpenAI.BadRequestError,
      param: 'temperature',
    })
    await expect(create({ prompt: 'word '.repeat(5000) })).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
    })
    await expect.poll(busy).toBe(0)
  })
})

test('two ranks say so, answer, and end in good order', async () => {
  const server = Server.start('--port', '0', '--tensor-parallel-size', '2', '--threads', '2')
  const client = new OpenAI({ baseURL: `${await server.ready()}/v1`, apiKey: 'none', maxRetries: 0 })
  const answer = await client.completions.create({ model: 'tales', prompt: 'Once upon a time', max_tokens: 8, seed: 1 })
  expect(answer.usage?.completion_tokens).toBeGreaterThan(0)
  expect(answer.system_fingerprint).toMatch(/-tp2$/)
  expect(server.output).toMatch(/ engine +\w+, 2 threads in 2 ranks\n/)
  expect(await server.stop()).toBe(0)
})

test('it serves on when nobody reads its output any more', async () => {
  const server = Server.start('--port', '0', '--log-level', 'debug')
  const url = await vi.waitUntil(() => /http:\/\/127\.0\.0\.1:\d+/.exec(server.output)?.[0], { timeout: 30_000 })
  server.process.stdout.destroy()
  server.process.stderr.destroy()
  const ready = () => fetch(`${url}/health/ready`).then(({ status }) => status === 200)
  await vi.waitUntil(ready, { timeout: 30_000 })
  expect((await fetch(`${url}/v1/models`)).status).toBe(200)
  expect(await server.stop()).toBe(0)
})

test('SIGTERM ends the server with exit code 0, and its WebSockets with 1001', async () => {
  const server = Server.start('--port', '0')
  const socket = await SocketClient.connect(await server.ready(), '/v1/stream')
  expect(await server.stop()).toBe(0)
  expect((await socket.closed).code).toBe(1001)
})

test('a load ends when it is told to, so that no signal has to wait for it', async () => {
  const script = `
    import { startEngine, stopLoading } from './dist/engine/addon.js'
    import { loadModel } from './dist/models/load.js'
    const model = await loadModel('models/tales')
    const options = { dtype: 'float32', num_threads: 1, max_model_len: 64, kv_cache_bytes: 1 << 24 }
    await (await startEngine(model, options)).close()
    stopLoading()
    await startEngine(model, options).catch((error) => console.log(error.message))`
  const run = promisify(execFile)
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], { cwd: root })
  expect(stdout).toBe('the load was stopped\n')
})

describe('what cannot be served ends with exit code 1, a reason, and no stack trace', () => {
  let folder: string
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'parley-e2e-'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  test.each<[string, () => string[], RegExp]>([
    ['a folder that is not there', () => ['--model', join(folder, 'nothing')], /nothing: expected a model folder/],
    ['an empty folder', () => ['--model', folder], /config\.json/],
    [
      'a config.json that is no JSON',
      () => {
        writeFileSync(join(folder, 'config.json'), '{')
        return ['--model', folder]
      },
      /config\.json: expected/,
    ],
    [
      'a model that does not fit',
      () => ['--kv-cache-memory', '60TiB'],
      /tales does not fit: it takes .* of weights, .* of workspace and 60\.0 TiB of KV pages, .* are free .*; `parley fit` shows all/,
    ],
  ])('%s', async (_name, options, reason) => {
    const server = Server.start('--port', '0', ...options())
    expect(await server.exited).toBe(1)
    expect(server.output).toMatch(reason)
    expect(server.output).not.toMatch(/\n\s+at /)
  })

  test('a port that is taken', async () => {
    const blocker = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => blocker.once('listening', resolve))
    const address = blocker.address()
    const port = typeof address === 'object' ? address?.port : 0
    const server = Server.start('--port', String(port))
    expect(await server.exited).toBe(1)
    expect(server.output).toContain(String(port))
    expect(server.output).not.toMatch(/\n\s+at /)
    blocker.close()
  })
})
