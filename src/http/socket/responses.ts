// /v1/responses as a WebSocket: response.create comes in, the events of a streamed response go out. Responses of one lane, which is their
// stream_id or the lack of one, come one after the other; lanes run beside each other, and their events say which lane they are of.

import { ApiError } from '../../errors.js'
import type { Call } from '../call.js'
import { createResponse, type Latest } from '../responses.js'
import { describe } from '../validate.js'
import type { Message, Session } from './session.js'
import type { Socket } from './socket.js'

/** Lanes that a connection remembers the newest response of, at most, beside those that run. */
const maxLanes = 64
/** Characters of a lane's name, at most. */
const maxLaneLength = 64

interface Lane {
  readonly latest: Latest
  /** resolves when the responses so far have ended; null: they have */
  turn: Promise<void> | null
}

export class ResponsesSession implements Session {
  readonly #socket: Socket
  /** by their names; the one that was used last is the last */
  readonly #lanes = new Map<string | undefined, Lane>()

  constructor(socket: Socket) {
    this.#socket = socket
  }

  receive({ type, stream_id, ...body }: Message): void {
    if (type !== 'response.create') {
      throw new ApiError('invalid_value', `'type' must be "response.create", but got ${describe(type)}.`, 'type')
    }
    if (body.background === true) throw unsupported('background')
    if (body.generate === false) throw unsupported('generate')
    if (stream_id != null && !isLaneName(stream_id)) {
      const got = describe(stream_id)
      const message = `'stream_id' must be a string of 1 to ${maxLaneLength} characters, but got ${got}.`
      throw new ApiError('invalid_value', message, 'stream_id')
    }
    const name = stream_id ?? undefined
    const lane = this.#lane(name)
    const before = lane.turn
    const work = async (call: Call) => {
      await before
      if (!call.signal.aborted) await this.#answer(call, body, lane.latest, name)
    }
    const turn = this.#socket
      .run(new AbortController(), work, (error) => errorFrame(error, name))
      .then(() => {
        if (lane.turn === turn) lane.turn = null
      })
    lane.turn = turn
  }

  errorFrame(error: ApiError, message: Message | null): object {
    return errorFrame(error, isLaneName(message?.stream_id) ? message.stream_id : undefined)
  }

  /** The lane of this name. A new one takes the place of the one that has rested longest. */
  #lane(name: string | undefined): Lane {
    const lane = this.#lanes.get(name) ?? { latest: { stored: null }, turn: null }
    this.#lanes.delete(name)
    if (this.#lanes.size >= maxLanes) {
      const resting = [...this.#lanes].find(([, { turn }]) => turn === null)
      if (resting) this.#lanes.delete(resting[0])
    }
    this.#lanes.set(name, lane)
    return lane
  }

  async #answer(call: Call, body: object, latest: Latest, lane: string | undefined): Promise<void> {
    const reply = await createResponse(call, { ...body, stream: true }, latest)
    for await (const event of 'json' in reply ? [reply.json] : reply.events) {
      if (call.signal.aborted) return
      await this.#socket.send(inLane(event, lane))
    }
  }
}

function isLaneName(name: unknown): name is string {
  return typeof name === 'string' && name !== '' && name.length <= maxLaneLength
}

/** Both as a failed stream's event says it, and as OpenAI's WebSocket does: with the status and the error of HTTP. */
function errorFrame(error: ApiError, lane: string | undefined): object {
  const { code, message, param } = error.body().error
  const frame = { type: 'error', status: error.status, ...error.body(), code, message, param, sequence_number: 0 }
  return inLane(frame, lane)
}

function inLane(event: object, stream_id: string | undefined): object {
  return stream_id === undefined ? event : { ...event, stream_id }
}

function unsupported(param: string): ApiError {
  return new ApiError('unsupported_parameter', `'${param}' is not supported over a WebSocket. Leave it out.`, param)
}
