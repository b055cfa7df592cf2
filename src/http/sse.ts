// An async iterable → server-sent events. The reader's pace is the pace: nothing is made before the socket takes it.

import type { ServerResponse } from 'node:http'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { setAnswerHeaders } from './answer_headers.js'
import type { Ctx } from './context.js'
import { tell } from './record.js'
import { atEndOfTurn } from './turn.js'

/**
 * Answers with one event per value and what the wire sends at the end. The events go straight to node's response: a web stream in
 * between would cost as much as making them.
 * The first value is awaited before anything is sent, so that an error before it still has its HTTP status; a later error is an event.
 * @param values is left early when the client goes away
 * @throws what `values` throws before its first value
 */
export async function sse(c: Ctx, values: AsyncGenerator<object>): Promise<Response> {
  const first = await values.next()
  c.get('record').streaming = true
  setAnswerHeaders(c)
  const { headers } = c.body(null, 200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    // Reverse proxies such as nginx would collect the events otherwise.
    'x-accel-buffering': 'no',
  })
  c.env.outgoing.writeHead(200, Object.fromEntries(headers))
  write(c, first, values)
  return RESPONSE_ALREADY_SENT
}

async function write(c: Ctx, first: IteratorResult<object>, values: AsyncGenerator<object>): Promise<void> {
  const { outgoing } = c.env
  const { record, state, wire } = c.var
  const body = new BodyWriter(outgoing)
  try {
    for (let next = first; !next.done && !outgoing.destroyed; next = await values.next()) {
      if (!body.write(wire.event(next.value))) await drained(outgoing)
    }
    await values.return(undefined) // where the client is gone; else it has ended
  } catch (error) {
    body.write(wire.event(wire.error(tell(error, state, record), record.id)))
  }
  const gone = outgoing.destroyed
  body.end(wire.end)
  record.end(gone ? 499 : 200)
}

/** Characters that wait for the end of a turn of the event loop, at most. */
const maxHeld = 16 * 1024

/** Writes the texts of a response's body. What comes in one turn of the event loop leaves in one piece and one system call. */
class BodyWriter {
  readonly #outgoing: ServerResponse
  readonly #flush = () => this.#send()
  #held = ''
  #begun = false

  /** @param outgoing its head is written, and nothing of its body */
  constructor(outgoing: ServerResponse) {
    this.#outgoing = outgoing
  }

  /** @returns false where the reader is behind */
  write(text: string): boolean {
    if (this.#held === '') atEndOfTurn(this.#flush)
    this.#held += text
    if (this.#held.length >= maxHeld) this.#send()
    return !(this.#outgoing.socket ?? this.#outgoing).writableNeedDrain
  }

  end(text: string): void {
    const last = this.#held + text
    this.#held = ''
    this.#outgoing.end(last)
  }

  #send(): void {
    const text = this.#held
    if (text === '') return
    this.#held = ''
    const { socket, chunkedEncoding, destroyed } = this.#outgoing
    if (destroyed) return
    if (this.#begun && chunkedEncoding && socket) {
      // Node's response would hand each chunk to the socket in four parts, which takes as long again as the writing itself.
      const bytes = Buffer.byteLength(text)
      socket.write(`${bytes.toString(16)}\r\n${text}\r\n`, bytes === text.length ? 'latin1' : 'utf8')
    } else {
      this.#begun = true // the head goes before it
      this.#outgoing.write(text)
    }
  }
}

/** Resolves when the reader has taken what was written, or is gone. */
async function drained(outgoing: ServerResponse): Promise<void> {
  if (outgoing.destroyed) return
  const { socket } = outgoing
  await new Promise<void>((resolve) => {
    const done = () => {
      socket?.off('drain', done)
      outgoing.off('drain', done).off('close', done)
      resolve()
    }
    socket?.on('drain', done)
    outgoing.on('drain', done).on('close', done)
  })
}
