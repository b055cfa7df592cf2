// Readers that stop reading, above the real engine: what waits for them is bounded, and they hold back nobody but themselves.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { writeRandomCheckpoint } from '../bench/random_checkpoint.js'
import { startRealServer } from './real_server.js'
import { SocketClient } from './socket_client.js'

const tales = fileURLToPath(new URL('../../models/tales', import.meta.url))
const max_tokens = 100_000
const messages = [{ role: 'user', content: 'x' }]

test('whoever stops reading, over HTTP or a WebSocket, holds little and only itself', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'parley-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const shape = { vocab: 4096, hidden: 32, layers: 1, heads: 2, positions: 131072 }
  writeRandomCheckpoint(folder, shape, tales)
  const url = await startRealServer(folder, { max_model_len: 131072, kv_cache_bytes: 1 << 28 })
  const sockets = serverSockets()
  const sampling = { temperature: 0, ignore_eos: true }

  // With log-probabilities, so that the buffers of the system are soon full.
  const completion = { prompt: 'x', max_tokens, logprobs: 5, stream: true, ...sampling }
  const chat = { messages, max_tokens, logprobs: true, top_logprobs: 20, stream: true, ...sampling }
  const response = { input: 'x', max_output_tokens: max_tokens, top_logprobs: 20, ...sampling }
  const include = ['message.output_text.logprobs']
  const slow = [
    stalledPost(url, '/v1/completions', completion),
    stalledPost(url, '/v1/chat/completions', chat),
    stalledPost(url, '/v1/responses', { ...response, include, stream: true }),
    await stalledSocket(url, '/v1/stream', [
      { id: 1, method: 'completions', params: completion },
      { id: 2, method: 'chat.completions', params: chat },
    ]),
    // /v1/realtime sends its events in the same way.
    await stalledSocket(url, '/v1/responses', [{ type: 'response.create', ...response, include }]),
  ]
  await paused(url, 6)

  for (const { writableLength } of sockets) expect(writableLength).toBeLessThan(256 * 1024)
  const answer = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'x', max_tokens: 5, ...sampling }),
  })
  expect(await answer.json()).toMatchObject({ usage: { completion_tokens: 5 } })
  for (const end of slow) end()
  await paused(url, 0)
})

/** Sockets that servers of this process accept from now on. */
function serverSockets(): Set<Socket> {
  const sockets = new Set<Socket>()
  const add = (message: unknown) => sockets.add((message as { socket: Socket }).socket)
  subscribe('net.server.socket', add)
  onTestFinished(() => {
    unsubscribe('net.server.socket', add)
  })
  return sockets
}

/** Asks and reads nothing; returns what ends it. */
function stalledPost(url: string, path: string, body: object): () => void {
  const json = JSON.stringify(body)
  const socket = connect(Number(new URL(url).port), '127.0.0.1')
  socket.pause()
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${json.length}\r\n\r\n${json}`,
  )
  return () => socket.destroy()
}

async function stalledSocket(url: string, path: string, messages: object[]): Promise<() => void> {
  const client = await SocketClient.connect(url, path)
  client.socket.pause()
  client.send(...messages)
  return () => client.socket.terminate()
}

/** Resolves when so many requests wait for their readers. */
async function paused(url: string, count: number): Promise<void> {
  for (;;) {
    const text = await (await fetch(`${url}/metrics`)).text()
    if (new RegExp(`^parley_requests_paused\\S* ${count}$`, 'm').test(text)) return
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
