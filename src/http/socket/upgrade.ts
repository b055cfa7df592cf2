// From an HTTP connection to a WebSocket: the handshake passes through the app like every request, so that routes, keys, origins,
// request ids and errors are the same.

import { type IncomingMessage, type Server, STATUS_CODES } from 'node:http'
import type { Socket as NetSocket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Hono } from 'hono'
import { WebSocketServer } from 'ws'
import { ApiError } from '../../errors.js'
import { chooseProtocol } from '../auth.js'
import { maxBodyBytes } from '../body.js'
import type { Env, RequestRecord, ServerState } from '../context.js'
import type { Session } from './session.js'
import type { Socket } from './socket.js'

/** A connection that wants to become a WebSocket. */
export interface Upgrade {
  /** set by the route that accepts it: what begins, and the record of the handshake */
  accepted: { open(socket: Socket): Session; record: RequestRecord } | null
}

export function acceptUpgrades(server: Server, app: Hono<Env>, state: ServerState): void {
  const webSockets = new WebSocketServer({
    noServer: true,
    clientTracking: false,
    maxPayload: maxBodyBytes,
    // Compression costs memory for each connection and time for each token; tokens are short.
    perMessageDeflate: false,
    handleProtocols: chooseProtocol,
  })

  async function handshake(incoming: IncomingMessage, connection: NetSocket, head: Buffer): Promise<void> {
    const upgrade: Upgrade = { accepted: null }
    const response = await ask(app, incoming, upgrade)
    if (upgrade.accepted === null) return answer(connection, response)
    const { open, record } = upgrade.accepted
    const { id } = record
    const addId = (headers: string[]) => headers.push(`x-request-id: ${id}`)
    const refuse = ({ message }: Error) => {
      const told = new ApiError('bad_http', `${message}.`)
      // With the version that is needed instead, as RFC 6455, section 4.4, asks for.
      const headers = { 'x-request-id': id, 'sec-websocket-version': '13' }
      answer(connection, Response.json(told.body(), { status: told.status, headers }))
    }
    webSockets.once('headers', addId).once('wsClientError', refuse)
    let status = 400
    // Calls back at once, or never where it refuses the handshake.
    webSockets.handleUpgrade(incoming, connection, head, (webSocket) => {
      status = 101
      const path = (incoming.url ?? '').split('?', 1)[0] ?? ''
      state.sockets.open(webSocket, connection, { id, path, state, open })
    })
    webSockets.off('headers', addId).off('wsClientError', refuse)
    record.end(status)
  }

  server.on('upgrade', (incoming, connection, head) => {
    connection.on('error', destroyThis)
    if (incoming.headers.upgrade?.toLowerCase() === 'websocket' && incoming.method === 'GET') {
      inTurn(() => {
        handshake(incoming, connection as NetSocket, head).catch((error: unknown) => {
          state.log('error', 'handshake_failed', { reason: String(error) })
          connection.destroy()
        })
      })
    } else {
      ignoreUpgrade(server, incoming, connection, head)
    }
  })
}

/** No closure, which would keep the handshake's request as long as the connection: 10,000 idle ones are to be small. */
function destroyThis(this: Duplex): void {
  this.destroy()
}

/** Handshakes that one turn of the event loop begins, at most. */
const handshakesPerTurn = 8

/** Where thousands connect at once, the others' tokens go in between. */
const waiting: (() => void)[] = []

function inTurn(handshake: () => void): void {
  if (waiting.push(handshake) === 1) setImmediate(begin)
}

function begin(): void {
  for (const handshake of waiting.splice(0, handshakesPerTurn)) handshake()
  if (waiting.length > 0) setImmediate(begin)
}

async function ask(app: Hono<Env>, incoming: IncomingMessage, upgrade: Upgrade): Promise<Response> {
  const { method = 'GET', url, headers } = incoming
  try {
    const fields = Object.entries(headers).map(([name, value]): [string, string] => [name, String(value)])
    const request = new Request(new URL(url ?? '/', `http://${headers.host}`), { method, headers: fields })
    return await app.fetch(request, { incoming, upgrade })
  } catch {
    const told = new ApiError('bad_http', 'The request line or the Host header is not valid.')
    return Response.json(told.body(), { status: told.status })
  }
}

/** Writes an answer of HTTP on the bare connection, and ends it. */
async function answer(connection: Duplex, response: Response): Promise<void> {
  const body = Buffer.from(await response.arrayBuffer())
  const { status, headers } = response
  const lines = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
    ...[...headers].map(([name, value]) => `${name}: ${value}`),
    `content-length: ${body.length}`,
    'connection: close',
  ]
  // Nobody reads it any more: its other half would stay open.
  connection.once('finish', () => connection.destroy())
  connection.end(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), body]))
}

/**
 * Serves a request as if it had not asked for an upgrade that this server does not have, such as HTTP/2 of Java's clients and of
 * curl: what node has read of it goes back into the connection without the offer.
 */
function ignoreUpgrade(
  server: Server,
  { method, url, httpVersion, rawHeaders }: IncomingMessage,
  connection: Duplex,
  head: Buffer,
) {
  const lines = [`${method} ${url} HTTP/${httpVersion}`]
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]?.toLowerCase()
    if (name !== 'upgrade' && name !== 'connection') lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`)
  }
  connection.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]))
  server.emit('connection', connection)
}
