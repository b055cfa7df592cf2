// A WebSocket client for tests: sends JSON, keeps what it receives in order.

import { onTestFinished } from 'vitest'
import { type ClientOptions, WebSocket } from 'ws'

// biome-ignore lint/suspicious/noExplicitAny: tests compare what they read
export type Frame = any

export class SocketClient {
  readonly socket: WebSocket
  /** resolves with the code and reason of the end */
  readonly closed: Promise<{ code: number; reason: string }>
  readonly #received: Frame[] = []
  #wake: () => void = () => {}

  private constructor(socket: WebSocket) {
    this.socket = socket
    socket.on('message', (data) => {
      this.#received.push(JSON.parse(data.toString()))
      this.#wake()
    })
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        resolve({ code, reason: reason.toString() })
        this.#wake()
      })
    })
  }

  /** Connects; the connection ends with the test. @param url of the server, http:// */
  static async connect(
    url: string,
    path: string,
    { protocols = [], ...options }: ClientOptions & { protocols?: string[] } = {},
  ): Promise<SocketClient> {
    const socket = new WebSocket(url.replace('http', 'ws') + path, protocols, options)
    const client = new SocketClient(socket)
    onTestFinished(() => socket.terminate())
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve)
      socket.once('error', reject)
    })
    socket.on('error', () => {})
    return client
  }

  send(...messages: object[]): void {
    for (const message of messages) this.socket.send(JSON.stringify(message))
  }

  /** The next frame. @throws Error when the connection ends first */
  async next(): Promise<Frame> {
    while (this.#received.length === 0) {
      if (this.socket.readyState === WebSocket.CLOSED) throw new Error('the connection is closed')
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    return this.#received.shift()
  }

  /** Frames up to and including the first that `test` holds for. */
  async until(test: (frame: Frame) => boolean): Promise<Frame[]> {
    const frames: Frame[] = []
    do frames.push(await this.next())
    while (!test(frames.at(-1)))
    return frames
  }
}
