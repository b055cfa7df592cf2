// /v1/stream: many completions and chats over one connection, interleaved. The README describes the protocol.

import { ApiError } from '../../errors.js'
import type { Call, Endpoint } from '../call.js'
import { createChatCompletion } from '../chat.js'
import { createCompletion } from '../completions.js'
import { Json, toJson } from '../json.js'
import { describe, missing } from '../validate.js'
import type { Message, Session } from './session.js'
import type { Socket } from './socket.js'

const methods = new Map<unknown, Endpoint>([
  ['chat.completions', createChatCompletion],
  ['completions', createCompletion],
])

/** Chunks that one message may allow, at most. */
const maxCredit = 1_000_000_000

type Id = string | number

/** A request that runs. */
interface Running {
  controller: AbortController
  /** chunks that may still be sent */
  credit: number
  /** called when there is more credit, or none is needed any more */
  wake: () => void
}

export class StreamSession implements Session {
  readonly #socket: Socket
  readonly #running = new Map<Id, Running>()

  constructor(socket: Socket) {
    this.#socket = socket
  }

  receive(message: Message): void {
    const { id, method, params, cancel, credit } = message
    if (!isId(id)) {
      if (id === undefined) throw missing('id')
      const message = `'id' must be an integer or a string of 1 to 64 characters, but got ${describe(id)}.`
      throw new ApiError('invalid_value', message, 'id')
    }
    if (credit !== undefined) checkCredit(credit)
    const running = this.#running.get(id)
    if (method !== undefined) {
      if (running) {
        throw new ApiError('invalid_value', `'id' must be new, but a request with the id ${describe(id)} runs.`, 'id')
      }
      const endpoint = methods.get(method)
      if (endpoint === undefined) {
        const names = [...methods.keys()].map(describe).join(', ')
        throw new ApiError('invalid_value', `'method' must be one of ${names}, but got ${describe(method)}.`, 'method')
      }
      this.#start(id, endpoint, params, credit ?? Number.POSITIVE_INFINITY)
    } else if (cancel === true) {
      running?.controller.abort() // or it has just ended
    } else if (credit !== undefined) {
      if (running) {
        running.credit += credit
        running.wake()
      }
    } else {
      throw new ApiError(
        'missing_required_parameter',
        "The message must have 'method', 'cancel' or 'credit'.",
        'method',
      )
    }
  }

  /** An error with an id ends the request of that id: one about a message that began none goes without. */
  errorFrame(error: ApiError, message: Message | null): object {
    const id = message?.id
    return { id: isId(id) && !this.#running.has(id) ? id : null, ...error.body() }
  }

  #start(id: Id, endpoint: Endpoint, params: unknown, credit: number): void {
    const controller = new AbortController()
    const running: Running = { controller, credit, wake: () => {} }
    controller.signal.addEventListener('abort', () => running.wake(), { once: true })
    const work = async (call: Call) => {
      try {
        await this.#answer(id, endpoint, params, running, call)
      } finally {
        this.#running.delete(id)
      }
      await this.#socket.send({ id, done: true })
    }
    this.#socket.run(controller, work, (error) => ({ id, ...error.body() }))
    this.#running.set(id, running)
  }

  async #answer(id: Id, endpoint: Endpoint, params: unknown, running: Running, call: Call): Promise<void> {
    // A stream unless the request says otherwise.
    const body =
      typeof params === 'object' && params !== null && !Array.isArray(params) ? { stream: true, ...params } : params
    const reply = await endpoint(call, body)
    const before = `{"id":${JSON.stringify(id)},"chunk":`
    for await (const chunk of 'json' in reply ? [reply.json] : reply.events) {
      while (running.credit === 0 && !call.signal.aborted) {
        await new Promise<void>((resolve) => {
          running.wake = resolve
        })
      }
      if (call.signal.aborted) return
      running.credit--
      await this.#socket.send(new Json(`${before}${toJson(chunk)}}`))
    }
  }
}

function isId(id: unknown): id is Id {
  return typeof id === 'string' ? id !== '' && id.length <= 64 : Number.isSafeInteger(id)
}

function checkCredit(credit: unknown): asserts credit is number {
  if (Number.isInteger(credit) && (credit as number) >= 1 && (credit as number) <= maxCredit) return
  const message = `'credit' must be an integer from 1 to ${maxCredit}, but got ${describe(credit)}.`
  throw new ApiError('invalid_value', message, 'credit')
}
