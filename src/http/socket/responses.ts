// /v1/responses as a WebSocket: response.create comes in, the events of a streamed response go out, one response after the other.

import { ApiError } from '../../errors.js'
import type { Call } from '../call.js'
import { createResponse, type Latest } from '../responses.js'
import { describe } from '../validate.js'
import type { Message, Session } from './session.js'
import type { Socket } from './socket.js'

export class ResponsesSession implements Session {
  readonly #socket: Socket
  readonly #latest: Latest = { stored: null }
  /** resolves when the responses before have ended */
  #turn: Promise<void> = Promise.resolve()

  constructor(socket: Socket) {
    this.#socket = socket
  }

  receive({ type, ...body }: Message): void {
    if (type !== 'response.create') {
      throw new ApiError('invalid_value', `'type' must be "response.create", but got ${describe(type)}.`, 'type')
    }
    if (body.background === true) throw unsupported('background')
    if (body.generate === false) throw unsupported('generate')
    const controller = new AbortController()
    const before = this.#turn
    const work = async (call: Call) => {
      await before
      if (!call.signal.aborted) await this.#answer(call, body)
    }
    this.#turn = this.#socket.run(controller, work, errorFrame)
  }

  errorFrame(error: ApiError): object {
    return errorFrame(error)
  }

  async #answer(call: Call, body: object): Promise<void> {
    const reply = await createResponse(call, { ...body, stream: true }, this.#latest)
    for await (const event of 'json' in reply ? [reply.json] : reply.events) {
      if (call.signal.aborted) return
      await this.#socket.send(event)
    }
  }
}

/** Both as a failed stream's event says it, and as OpenAI's WebSocket does: with the status and the error of HTTP. */
function errorFrame(error: ApiError): object {
  const { code, message, param } = error.body().error
  return { type: 'error', status: error.status, ...error.body(), code, message, param, sequence_number: 0 }
}

function unsupported(param: string): ApiError {
  return new ApiError('unsupported_parameter', `'${param}' is not supported over a WebSocket. Leave it out.`, param)
}
