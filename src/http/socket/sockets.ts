// All open WebSockets: how many there may be, whether their peers still live, and their end when the server goes.

import type { Socket as NetSocket } from 'node:net'
import type { WebSocket } from 'ws'
import { ApiError } from '../../errors.js'
import type { Metrics } from '../../metrics.js'
import { Socket, type SocketOptions } from './socket.js'

/** Open WebSockets, at most. */
const maxSockets = 16_384
const longestTickMs = 250

export class Sockets {
  readonly #metrics: Metrics
  readonly #heartbeatMs: number
  /** the one that waits longest for its ping comes first */
  readonly #open = new Set<Socket>()
  #ticker: NodeJS.Timeout | undefined
  /** pings that are due, in parts of one */
  #due = 0
  #draining = false

  /** @param heartbeatMs between two pings; a peer that is silent in between is dead */
  constructor(metrics: Metrics, heartbeatMs = 30_000) {
    this.#metrics = metrics
    this.#heartbeatMs = heartbeatMs
  }

  /** @throws ApiError when there are as many as there may be */
  checkRoom(): void {
    if (this.#open.size < maxSockets) return
    throw new ApiError('too_many_sockets', `This server has ${maxSockets} open WebSockets, as many as it allows.`)
  }

  open(webSocket: WebSocket, connection: NetSocket, options: SocketOptions): void {
    const socket = new Socket(webSocket, connection, options)
    this.#open.add(socket)
    this.#metrics.socketOpened()
    webSocket.on('close', () => {
      this.#open.delete(socket)
      this.#metrics.socketClosed()
      if (this.#open.size === 0) clearInterval(this.#ticker)
    })
    if (this.#open.size === 1) this.#startTicking()
    if (this.#draining) socket.drain()
  }

  /** Closes each when its last request has ended; those that have none at once. */
  drain(): void {
    this.#draining = true
    for (const socket of this.#open) socket.drain()
  }

  #startTicking(): void {
    const tickMs = Math.min(longestTickMs, this.#heartbeatMs)
    this.#ticker = setInterval(() => this.#beat(tickMs), tickMs).unref()
  }

  /** Each is pinged once a heartbeat; a few at a time, so that many make no pause. */
  #beat(tickMs: number): void {
    this.#due = Math.min(this.#open.size, this.#due + (this.#open.size * tickMs) / this.#heartbeatMs)
    for (const socket of this.#open) {
      if (this.#due < 1) return
      this.#due--
      this.#open.delete(socket)
      this.#open.add(socket)
      socket.beat()
    }
  }
}
