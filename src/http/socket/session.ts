// What a WebSocket speaks: a session takes the client's messages, and a route opens it.

import { ApiError } from '../../errors.js'
import type { Ctx } from '../context.js'
import { notReady } from '../ready.js'
import type { Socket } from './socket.js'

/** A client's message: a JSON object. */
export type Message = Readonly<Record<string, unknown>>

/** One connection's side of a protocol. The requests that it starts run by socket.run, which ends them with the connection. */
export interface Session {
  /** @throws ApiError that the client is told */
  receive(message: Message): void
  /** The frame that tells of an error. @param message what was wrong, or null when it could not be read */
  errorFrame(error: ApiError, message: Message | null): object
}

/**
 * The handler of a WebSocket's handshake. Who may not connect gets an answer of HTTP.
 * @param open begins the session of a new connection
 */
export function webSocket(open: (socket: Socket) => Session, check: (c: Ctx) => void = () => {}): (c: Ctx) => Response {
  return (c) => {
    const { upgrade } = c.env
    if (upgrade === undefined) {
      c.header('upgrade', 'websocket')
      throw new ApiError('upgrade_required', 'This is a WebSocket: connect with ws:// or wss://.')
    }
    const { phase, sockets } = c.get('state')
    if (phase.name === 'draining') throw notReady(phase)
    sockets.checkRoom()
    check(c)
    const record = c.get('record')
    record.streaming = true // the upgrade says how it ends
    upgrade.accepted = { open, record }
    return c.body(null, 200)
  }
}
