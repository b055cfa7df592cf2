// Event streams as bytes on a connection: one after the other, and for a client that knows no chunks.

import { once } from 'node:events'
import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

const words = ['Hello', ' world', 'Hello', ' world']
const script = async function* () {
  for (const text of words) {
    await new Promise((resolve) => setImmediate(resolve))
    yield word(text)
  }
  yield word('Hello')
}

/** Sends requests at once and resolves with all that comes until the end of the connection. */
async function exchange(port: number, requests: string[]): Promise<string> {
  const socket = connect(port, '127.0.0.1').setEncoding('utf8')
  socket.write(requests.join(''))
  let received = ''
  socket.on('data', (text) => {
    received += text
  })
  await once(socket, 'close')
  return received
}

function request(version: string, connection: string, body: object): string {
  const json = JSON.stringify(body)
  const head = `POST /v1/completions HTTP/${version}\r\nhost: x\r\nconnection: ${connection}\r\ncontent-type: application/json\r\n`
  return `${head}content-length: ${Buffer.byteLength(json)}\r\n\r\n${json}`
}

/** @returns a chunked body's text, and what follows it */
function unchunk(text: string): [body: string, rest: string] {
  let rest = Buffer.from(text)
  let body = ''
  for (;;) {
    const end = rest.indexOf('\r\n')
    const size = Number.parseInt(rest.subarray(0, end).toString(), 16)
    expect(rest.subarray(end + 2 + size, end + 4 + size).toString()).toBe('\r\n')
    body += rest.subarray(end + 2, end + 2 + size).toString()
    rest = rest.subarray(end + 4 + size)
    if (size === 0) return [body, rest.toString()]
  }
}

const textOf = (body: string) => {
  expect(body).toMatch(/\n\ndata: \[DONE\]\n\n$/)
  return [...body.matchAll(/^data: (\{.*)$/gm)].map(([, json = '']) => JSON.parse(json).choices[0].text).join('')
}
const expected = `${words.join('')}Hello`
const body = { prompt: 'é', max_tokens: 5, stream: true }

test('two streams that were asked for at once come one after the other, in whole chunks', async () => {
  const { port } = await startFakeServer({ script })
  // The echo of the first is no ASCII.
  const requests = [request('1.1', 'keep-alive', { ...body, echo: true }), request('1.1', 'close', body)]
  let rest = await exchange(port, requests)
  const texts: string[] = []
  for (let i = 0; i < 2; i++) {
    const [head = ''] = rest.split('\r\n\r\n', 1)
    expect(head).toMatch(/^HTTP\/1\.1 200 OK\r\n/)
    expect(head.toLowerCase()).toContain('transfer-encoding: chunked')
    const [text, next] = unchunk(rest.slice(head.length + 4))
    texts.push(textOf(text))
    rest = next
  }
  expect([...texts, rest]).toEqual([`é${expected}`, expected, ''])
})

test('a client of HTTP/1.0 gets the events without chunks', async () => {
  const { port } = await startFakeServer({ script })
  const received = await exchange(port, [request('1.0', 'close', body)])
  const at = received.indexOf('\r\n\r\n')
  expect(received.slice(0, at).toLowerCase()).not.toContain('transfer-encoding')
  expect(received.slice(at + 4)).toMatch(/^data: /)
  expect(textOf(received.slice(at + 4))).toBe(expected)
})
