// A server's life: loading, ready, clients that go, many at once, draining; and what is counted and logged meanwhile.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { connect, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { EOS, word } from '../generation/fake_model.js'
import { json, startFakeServer, until } from './fake_server.js'

const messages = [{ role: 'user', content: 'Tell me nothing.' }]

test('while the model loads: alive, not ready, and worth trying again', async () => {
  const { url, post } = await startFakeServer({ phase: 'loading' })
  expect((await fetch(`${url}/health/live`)).status).toBe(200)
  expect((await fetch(`${url}/metrics`)).status).toBe(200)
  for (const response of [
    await fetch(`${url}/health/ready`),
    await fetch(`${url}/health`),
    await fetch(`${url}/v1/models`),
    await post('/v1/completions', { prompt: 'x' }),
    await post('/v1/chat/completions', { messages }),
  ]) {
    expect([response.status, response.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await response.json()).toEqual({
      error: { message: 'The model is loading (42%).', type: 'server_error', param: null, code: 'model_loading' },
    })
  }
})

test('ready is 200, also to HEAD; an engine that stands still is neither ready nor alive', async () => {
  const { url, engine } = await startFakeServer()
  const status = async (path: string, method = 'GET') => (await fetch(url + path, { method })).status
  expect(await status('/health')).toBe(200)
  expect(await status('/health/ready', 'HEAD')).toBe(200)
  expect(await (await fetch(`${url}/health/live`)).json()).toEqual({ status: 'live' })
  engine.stepAgeMs = 61_000
  expect([await status('/health'), await status('/health/ready'), await status('/health/live')]).toEqual([
    503, 503, 503,
  ])
  engine.stepAgeMs = 0
  expect(await status('/health/ready')).toBe(200)
  engine.stoppedRanks = 1
  expect([await status('/health/ready'), await status('/health/live')]).toEqual([503, 503])
})

test('while the server drains: running requests finish, new ones are told to go elsewhere', async () => {
  let finish: () => void = () => {}
  const gate = new Promise<void>((resolve) => {
    finish = resolve
  })
  const { url, post, state, engine } = await startFakeServer({
    script: async function* () {
      yield word('Hello')
      await gate
      yield EOS
    },
  })
  const running = post('/v1/completions', { prompt: 'x' })
  await engine.until(({ seen }) => seen[0]?.num_generated === 1)
  state.phase = { name: 'draining', engine }
  let idle = false
  state.onIdle = () => {
    idle = true
  }
  const refused = await fetch(`${url}/health/ready`)
  expect([refused.status, refused.headers.get('connection'), (await json(refused)).error.code]).toEqual([
    503,
    'close',
    'server_shutting_down',
  ])
  expect((await post('/v1/completions', { prompt: 'y' })).status).toBe(503)
  expect((await fetch(`${url}/health/live`)).status).toBe(200)
  expect(state.inFlight).toBe(1)
  idle = false
  finish()
  expect((await json(await running)).choices[0].text).toBe('Hello')
  await until(() => idle)
  expect(state.inFlight).toBe(0)
})

for (const [kind, path, body] of [
  ['a stream', '/v1/chat/completions', { messages, stream: true }],
  ['a stream of three', '/v1/completions', { prompt: 'x', n: 3, stream: true, max_tokens: 200 }],
  ['a whole answer', '/v1/completions', { prompt: 'x', max_tokens: 200 }],
  ['a whole chat', '/v1/chat/completions', { messages }],
] as const) {
  test(`a client that leaves ${kind} frees the engine before its next token`, async () => {
    let tokens = 0
    let goOn: () => void = () => {}
    const { port, engine, state, logged, url } = await startFakeServer({
      script: async function* () {
        for (;;) {
          yield word('Hello')
          if (++tokens > 4) {
            await new Promise<void>((resolve) => {
              goOn = resolve
            })
          }
        }
      },
    })
    const json = JSON.stringify(body)
    const socket = connect(port, '127.0.0.1')
    socket.write(
      `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`,
    )
    await engine.until(({ seen }) => (seen[0]?.num_generated ?? 0) > 0)
    const before = engine.seen.map(({ state: requestState }) => requestState)
    expect(new Set(before)).toEqual(new Set(['running']))
    socket.destroy()
    await engine.until(({ seen }) => seen.every(({ state: requestState }) => requestState !== 'running'))
    expect(new Set(engine.seen.map(({ state: requestState }) => requestState))).toEqual(new Set(['cancelled']))
    const counts = engine.seen.map(({ num_generated }) => num_generated)
    goOn()
    await until(() => state.inFlight === 0)
    expect(engine.seen.map(({ num_generated }) => num_generated)).toEqual(counts)
    expect(logged.filter(({ event }) => event === 'request')).toMatchObject([{ status: 499, path }])
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^parley_client_disconnects_total 1$/m)
  })
}

test('a reader that stops reading stops the answer, not the server', async () => {
  const { port, engine, url } = await startFakeServer({
    script: function* () {
      for (;;) yield { token: 97, logprob: -1, top: Array.from({ length: 20 }, (_, token) => ({ token, logprob: -2 })) }
    },
    model: {},
  })
  Object.assign(engine.info, { max_model_len: 1_000_000 })
  const json = JSON.stringify({ prompt: 'x', stream: true, max_tokens: 500_000, logprobs: 20 })
  const socket = connect(port, '127.0.0.1')
  socket.pause()
  socket.write(
    `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`,
  )
  await engine.until(({ seen }) => (seen[0]?.num_generated ?? 0) > 0)
  // Until the sockets' buffers are full; then nothing more is made.
  let last = -1
  while (engine.seen[0]?.num_generated !== last) {
    last = engine.seen[0]?.num_generated ?? 0
    await new Promise((resolve) => setTimeout(resolve, 150))
  }
  expect(last).toBeLessThan(100_000)
  expect((await fetch(`${url}/health`)).status).toBe(200)
  socket.destroy()
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
})

test('of a reader that stops reading no more waits than the event that is being written and 256 KiB', async () => {
  const { port, engine } = await startFakeServer({
    script: function* () {
      // An event that is larger than what a system takes for a connection.
      yield { token: 97, logprob: -1, top: Array.from({ length: 200_000 }, () => ({ token: 98, logprob: -2 })) }
      for (;;) yield 97
    },
  })
  Object.assign(engine.info, { max_model_len: 1_000_000 })
  const connections: Socket[] = []
  const note = (message: unknown) => connections.push((message as { socket: Socket }).socket)
  subscribe('http.server.request.start', note)
  onTestFinished(() => {
    unsubscribe('http.server.request.start', note)
  })
  const json = JSON.stringify({ messages, stream: true, logprobs: true, top_logprobs: 20, max_tokens: 500_000 })
  const socket = connect(port, '127.0.0.1')
  socket.pause()
  socket.write(
    `POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`,
  )
  await until(() => (connections[0]?.writableLength ?? 0) > 0)
  let made = -1
  while (engine.seen[0]?.num_generated !== made) {
    made = engine.seen[0]?.num_generated ?? 0
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  const waiting = connections[0]?.writableLength ?? 0
  // The event that begins the answer, which is small, and the large one.
  let events = 0
  let bytes = 0
  for await (const data of socket) {
    bytes += data.length
    events += data.toString('latin1').split('\n\n').length - 1
    if (events >= 2) break
  }
  expect(bytes).toBeGreaterThan(8_000_000)
  expect(waiting).toBeLessThan(bytes + 256 * 1024)
  await engine.until(({ seen }) => seen[0]?.state === 'cancelled')
})

test('16 at once: each gets its own answer', async () => {
  const { client, engine, state } = await startFakeServer({
    script: async function* ({ prompt }) {
      for (const token of prompt) {
        await new Promise((resolve) => setImmediate(resolve))
        yield token
      }
      yield EOS
    },
  })
  const answers = await Promise.all(
    Array.from({ length: 16 }, async (_, i) => {
      const prompt = `prompt number ${i}`
      if (i % 2 === 0)
        return (await client.completions.create({ model: 'org/fake', prompt, max_tokens: 50 })).choices[0]?.text
      let text = ''
      for await (const chunk of await client.completions.create({
        model: 'org/fake',
        prompt,
        max_tokens: 50,
        stream: true,
      })) {
        text += chunk.choices[0]?.text ?? ''
      }
      return text
    }),
  )
  expect(answers).toEqual(Array.from({ length: 16 }, (_, i) => `prompt number ${i}`))
  expect(engine.seen).toHaveLength(16)
  await until(() => state.inFlight === 0)
})

test('each request has an id, in the answer and in the log; a sane one of the client is kept', async () => {
  const { url, logged, post } = await startFakeServer()
  const idOf = async (id?: string) =>
    (await fetch(`${url}/health`, id === undefined ? {} : { headers: { 'x-request-id': id } })).headers.get(
      'x-request-id',
    )
  expect(await idOf()).toMatch(/^req_[0-9a-f]{32}$/)
  expect(await idOf('my-request:1.2_3')).toBe('my-request:1.2_3')
  for (const hostile of ['a b', '"}{', 'x'.repeat(129), '<script>']) expect(await idOf(hostile)).toMatch(/^req_/)
  const errorId = (
    await post('/v1/completions', { prompt: 5 }, { headers: { 'x-request-id': 'wrong-1' } })
  ).headers.get('x-request-id')
  expect(errorId).toBe('wrong-1')
  expect(logged.map(({ request_id }) => request_id)).toContain('wrong-1')
})

test('one line a finished request, with numbers and without a word of the prompt', async () => {
  const { post, logged, stream, state } = await startFakeServer()
  await post('/v1/chat/completions', { messages })
  await stream('/v1/chat/completions', { messages, max_tokens: 1 })
  await post('/v1/chat/completions', { messages, n: 'Tell me nothing.'.repeat(1) })
  await until(() => state.inFlight === 0)
  expect(logged).toMatchObject([
    {
      level: 'info',
      event: 'request',
      method: 'POST',
      path: '/v1/chat/completions',
      status: 200,
      prompt_tokens: 18,
      completion_tokens: 3,
      finish_reason: 'stop',
    },
    { status: 200, prompt_tokens: 18, completion_tokens: 1, finish_reason: 'length' },
    { status: 400, error: 'invalid_type' },
  ])
  expect(typeof logged[0]?.duration_ms).toBe('number')
  expect(JSON.stringify(logged)).not.toMatch(/nothing|Hello|world/)
})

test('/metrics speaks vLLM, with one series per gauge', async () => {
  const { url, post, engine } = await startFakeServer()
  await post('/v1/completions', { prompt: 'ab' })
  await post('/v1/completions', { prompt: 'abc', max_tokens: 1 })
  await post('/v1/completions', { prompt: 5 })
  await fetch(`${url}/nothing`)
  engine.seen.push({ prompt: Int32Array.of(1), sampling: { max_tokens: 1 }, num_generated: 0, state: 'running' })
  const response = await fetch(`${url}/metrics`)
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  const text = await response.text()
  const labels = 'model_name="org/fake",engine="0"'
  for (const line of [
    `vllm:num_requests_running{${labels}} 1`,
    `vllm:num_requests_waiting{${labels}} 0`,
    `parley_requests_paused{${labels}} 0`,
    `vllm:kv_cache_usage_perc{${labels}} ${1 / 64}`,
    `vllm:prompt_tokens_total{${labels}} 6`,
    `vllm:generation_tokens_total{${labels}} 4`,
    `vllm:num_preemptions_total{${labels}} 0`,
    `vllm:prefix_cache_queries_total{${labels}} 0`,
    `vllm:prefix_cache_hits_total{${labels}} 0`,
    `vllm:request_success_total{finished_reason="stop",${labels}} 1`,
    `vllm:request_success_total{finished_reason="length",${labels}} 1`,
    `vllm:time_to_first_token_seconds_count{${labels}} 2`,
    `vllm:inter_token_latency_seconds_count{${labels}} 2`,
    `vllm:e2e_request_latency_seconds_count{${labels}} 2`,
    `vllm:request_prompt_tokens_sum{${labels}} 5`,
    `vllm:request_generation_tokens_sum{${labels}} 4`,
    `vllm:cache_config_info{block_size="16",num_gpu_blocks="64",cache_dtype="float16",${labels}} 1`,
    'parley_engine_memory_bytes{kind="workspace"} 4096',
    'parley_build_info{version="0",dtype="float16",device="cpu",isa="baseline",tensor_parallel_size="1"} 1',
    'parley_requests_rejected_total{code="invalid_type"} 1',
    'parley_requests_rejected_total{code="unknown_url"} 1',
    'parley_client_disconnects_total 0',
  ]) {
    expect(text.split('\n')).toContain(line)
  }
  for (const which of ['', 'min_', 'max_', 'mean_', 'stddev_', 'p50_', 'p90_', 'p99_']) {
    expect(text.match(new RegExp(`^nodejs_eventloop_lag_${which}seconds \\S+$`, 'gm'))).toHaveLength(1)
  }
  if (process.platform === 'linux') expect(text).toMatch(/^process_open_fds [1-9]/m)
  expect(text).not.toContain('nodejs_active_') // they would go through all sockets, with 10,000 of them for 20 ms
  for (const name of ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc']) {
    expect(text.match(new RegExp(`^vllm:${name}{`, 'gm'))).toHaveLength(1)
  }
  // A second scrape shows the engine's counts, not twice of them.
  expect((await (await fetch(`${url}/metrics`)).text()).split('\n')).toContain(`vllm:prompt_tokens_total{${labels}} 6`)
})
