// One open WebSocket: JSON texts in, JSON texts out at the reader's pace, and the requests that it has started.

import type { Socket as NetSocket } from 'node:net'
import type { RawData, WebSocket } from 'ws'
import { ApiError } from '../../errors.js'
import { parseJson } from '../body.js'
import type { Call } from '../call.js'
import type { ServerState } from '../context.js'
import { toJson } from '../json.js'
import { beginRequest, tell } from '../record.js'
import { atEndOfTurn } from '../turn.js'
import { describe } from '../validate.js'
import type { Message, Session } from './session.js'

/** Requests of one WebSocket that run at the same time, at most. */
const maxRequests = 256
/** Bytes of frames that wait for the reader, before requests do: more than a step of 128 streams makes. */
const maxWaiting = 64 * 1024
/** Bytes of answers that a client has not read, at most. */
const maxUnread = 128 * 1024

/** Codes of RFC 6455, section 7.4.1. */
const goingAway = 1001
const unsupportedData = 1003
const policyViolation = 1008

export interface SocketOptions {
  /** x-request-id of the handshake */
  id: string
  path: string
  state: ServerState
  open(socket: Socket): Session
}

export class Socket {
  readonly state: ServerState
  readonly #id: string
  readonly #path: string
  readonly #webSocket: WebSocket
  readonly #connection: NetSocket
  readonly #session: Session
  readonly #running = new Set<AbortController>()
  readonly #opened = performance.now()
  #numRequests = 0
  #heard = true
  #draining = false
  #corked = false
  #room: Promise<void> | null = null

  constructor(webSocket: WebSocket, connection: NetSocket, { id, path, state, open }: SocketOptions) {
    this.state = state
    this.#id = id
    this.#path = path
    this.#webSocket = webSocket
    this.#connection = connection
    this.#session = open(this)
    webSocket.on('message', (data, isBinary) => this.#receive(data, isBinary))
    webSocket.on('pong', () => {
      this.#heard = true
    })
    webSocket.on('close', (code) => this.#closed(code))
    // Broken frames; 'close' follows.
    webSocket.on('error', () => {})
  }

  /**
   * Sends a frame when the reader has taken those before, so that never more waits than `maxWaiting` and one frame.
   * A frame for a connection that is closed is dropped.
   */
  async send(frame: object): Promise<void> {
    while (this.#connection.writableNeedDrain && this.#connection.writableLength >= maxWaiting) await this.#drained()
    this.#write(frame)
  }

  /** Answers a message at once. Who sends messages without reading their answers is cut off. */
  reply(frame: object): void {
    this.#write(frame)
    if (this.#connection.writableLength > maxUnread) this.#webSocket.close(policyViolation, 'Read what you are told.')
  }

  /**
   * Runs a request of this connection: counted, logged, ended with the connection. Its errors are told, not thrown.
   * @param controller ends the request when it is aborted
   * @param failed the frame that tells of an error
   * @throws ApiError when too many run already
   */
  run(
    controller: AbortController,
    work: (call: Call) => Promise<void>,
    failed: (error: ApiError) => object,
  ): Promise<void> {
    if (this.#running.size >= maxRequests) {
      throw new ApiError(
        'socket_busy',
        `One WebSocket may have ${maxRequests} requests at a time, and this one has as many.`,
      )
    }
    this.#running.add(controller)
    return this.#run(controller, work, failed).finally(() => {
      this.#running.delete(controller)
      if (this.#draining) this.drain()
    })
  }

  async #run(
    { signal }: AbortController,
    work: (call: Call) => Promise<void>,
    failed: (error: ApiError) => object,
  ): Promise<void> {
    const record = beginRequest(this.state, `${this.#id}-${++this.#numRequests}`, 'WS', this.#path)
    try {
      await work({ state: this.state, record, signal })
      record.end(signal.aborted ? 499 : 200)
    } catch (error) {
      if (error === signal.reason) {
        record.end(499)
        return
      }
      const told = tell(error, this.state, record)
      await this.send(failed(told))
      record.end(told.status)
    }
  }

  /** Closes the connection when nothing runs; see Sockets.drain. */
  drain(): void {
    this.#draining = true
    if (this.#running.size === 0) this.#webSocket.close(goingAway, 'The server is shutting down.')
  }

  /** Cuts a peer that was silent since the last ping, and pings the others. */
  beat(): void {
    if (this.#heard) this.#webSocket.ping()
    else this.#webSocket.terminate()
    this.#heard = false
  }

  #receive(data: RawData, isBinary: boolean): void {
    if (this.#webSocket.readyState !== this.#webSocket.OPEN) return // closing: what comes now has no answer
    this.#heard = true
    if (isBinary) {
      this.#webSocket.close(unsupportedData, 'Messages must be JSON texts.')
      return
    }
    let message: Message | null = null
    try {
      message = messageOf(data.toString())
      this.#session.receive(message)
    } catch (error) {
      // Not a request yet, but the log and the metrics count it as one.
      const record = beginRequest(this.state, `${this.#id}-${++this.#numRequests}`, 'WS', this.#path)
      const told = tell(error, this.state, record)
      this.reply(this.#session.errorFrame(told, message))
      record.end(told.status)
    }
  }

  /** All frames of one turn of the event loop leave in one system call. */
  #write(frame: object): void {
    if (!this.#corked) {
      this.#corked = true
      this.#connection.cork()
      atEndOfTurn(() => {
        this.#corked = false
        this.#connection.uncork()
      })
    }
    this.#webSocket.send(toJson(frame))
  }

  /** Resolves when the reader has taken all that was sent, or is gone. */
  #drained(): Promise<void> {
    this.#room ??= new Promise<void>((resolve) => {
      const done = () => {
        this.#connection.off('drain', done).off('close', done)
        this.#room = null
        this.#heard = true // a slow reader reads the ping late, but it reads
        resolve()
      }
      this.#connection.on('drain', done).on('close', done)
    })
    return this.#room
  }

  #closed(code: number): void {
    for (const controller of this.#running) controller.abort()
    this.state.log('info', 'websocket', {
      request_id: this.#id,
      path: this.#path,
      code,
      requests: this.#numRequests,
      duration_ms: Math.round(performance.now() - this.#opened),
    })
  }
}

/** @throws ApiError */
function messageOf(text: string): Message {
  const value = parseJson(text, 'message')
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Message
  throw new ApiError('invalid_type', `The message must be a JSON object, but got ${describe(value)}.`)
}
