// /v1/realtime: OpenAI's Realtime protocol for text. A session with one conversation and its responses.

import { ApiError } from '../../errors.js'
import { newId } from '../answer.js'
import type { Ctx } from '../context.js'
import { checkModel } from '../ready.js'
import { describe } from '../validate.js'
import { Conversation, messageOf } from './conversation.js'
import { newResponse, type RealtimeEvent, responseEvents } from './realtime_response.js'
import {
  maxEventIdLength,
  parseCancel,
  parseCreateItem,
  parseItemId,
  parseResponse,
  parseSession,
  type SessionFields,
} from './realtime_schema.js'
import type { Message, Session } from './session.js'
import type { Socket } from './socket.js'

/** Events of OpenAI's clients for voices. */
const aboutAudio = /^(input_audio_buffer|output_audio_buffer|conversation\.item\.truncate)/

/** @throws ApiError for a session that this server cannot hold */
export function checkRealtime(c: Ctx): void {
  for (const name of ['call_id', 'intent']) {
    if (c.req.query(name) !== undefined) {
      throw new ApiError('unsupported_parameter', `'${name}' is not supported: sessions here are of text.`, name)
    }
  }
  checkModel(c.get('state'), c.req.query('model'))
}

export class RealtimeSession implements Session {
  readonly #socket: Socket
  readonly #id = newId('sess_')
  readonly #conversation = new Conversation()
  /** what ends each response that runs, by its id */
  readonly #running = new Map<string, AbortController>()
  /** id of the response that writes into the conversation */
  #active: string | null = null
  #fields: SessionFields = {}
  #numEvents = 0

  constructor(socket: Socket) {
    this.#socket = socket
    this.#tell({ type: 'session.created', session: this.#shown })
  }

  receive(message: Message): void {
    switch (message.type) {
      case 'session.update':
        this.#update(message.session)
        break
      case 'conversation.item.create':
        this.#create(message)
        break
      case 'conversation.item.retrieve':
        this.#retrieve(message)
        break
      case 'conversation.item.delete':
        this.#delete(message)
        break
      case 'response.create':
        this.#respond(message)
        break
      case 'response.cancel':
        this.#cancel(message)
        break
      default:
        throw unknownType(message.type)
    }
  }

  errorFrame(error: ApiError, message: Message | null): object {
    const event_id = message?.event_id
    const known = typeof event_id === 'string' && event_id.length <= maxEventIdLength
    return this.#event({ type: 'error', error: { ...error.body().error, event_id: known ? event_id : null } })
  }

  #update(session: unknown): void {
    const { state } = this.#socket
    const fields = parseSession(session, state.log)
    checkModel(state, fields.model)
    this.#fields = { ...this.#fields, ...fields }
    this.#tell({ type: 'session.updated', session: this.#shown })
  }

  #create(message: Message): void {
    const { item, previous_item_id } = parseCreateItem(message, this.#socket.state.log)
    const before = this.#conversation.insert(item, previous_item_id)
    this.#tell({ type: 'conversation.item.added', previous_item_id: before, item })
    this.#tell({ type: 'conversation.item.done', previous_item_id: before, item })
  }

  #retrieve(message: Message): void {
    const item = this.#conversation.get(parseItemId(message, this.#socket.state.log))
    this.#tell({ type: 'conversation.item.retrieved', item })
  }

  #delete(message: Message): void {
    const item_id = parseItemId(message, this.#socket.state.log)
    this.#conversation.delete(item_id)
    this.#tell({ type: 'conversation.item.deleted', item_id })
  }

  #respond(message: Message): void {
    const own = parseResponse(message.response, this.#socket.state.log)
    const conversation = own.conversation === 'none' ? null : this.#conversation
    if (conversation && this.#active !== null) {
      throw new ApiError(
        'conversation_already_has_active_response',
        `The conversation has an active response: ${this.#active}. Wait for its end, or cancel it.`,
      )
    }
    const fields = { ...this.#fields, ...own }
    const input = own.input?.map(messageOf) ?? this.#conversation.messages
    const response = newResponse(fields, conversation)
    const controller = new AbortController()
    const ended = this.#socket.run(
      controller,
      async (call) => {
        for await (const event of responseEvents(call, fields, input, response, conversation)) {
          // Whoever reads that it is over may ask for the next one.
          if (event.type === 'response.done') this.#ended(response.id)
          await this.#socket.send(this.#event(event))
        }
      },
      (error) => this.errorFrame(error, message),
    )
    this.#running.set(response.id, controller)
    if (conversation) this.#active = response.id
    ended.finally(() => this.#ended(response.id))
  }

  #ended(id: string): void {
    this.#running.delete(id)
    if (this.#active === id) this.#active = null
  }

  #cancel(message: Message): void {
    const id = parseCancel(message, this.#socket.state.log) ?? this.#active
    const controller = id === null ? undefined : this.#running.get(id)
    if (!controller) {
      throw new ApiError('response_cancel_not_active', 'There is no such active response.', 'response_id')
    }
    controller.abort()
  }

  get #shown(): object {
    const { instructions = '', max_output_tokens = 'inf', tool_choice = 'auto' } = this.#fields
    return {
      ...{ type: 'realtime', object: 'realtime.session', id: this.#id, model: this.#socket.state.modelName },
      ...{ output_modalities: ['text'], instructions, max_output_tokens, tool_choice, tools: [] },
      ...{ truncation: 'disabled', tracing: null, prompt: null, include: null },
    }
  }

  #event(event: RealtimeEvent): object {
    return { event_id: `event_${this.#id.slice('sess_'.length)}_${++this.#numEvents}`, ...event }
  }

  #tell(event: RealtimeEvent): void {
    this.#socket.reply(this.#event(event))
  }
}

function unknownType(type: unknown): ApiError {
  return typeof type === 'string' && aboutAudio.test(type)
    ? new ApiError('unsupported_value', `${describe(type)} is not supported: sessions here are of text.`, 'type')
    : new ApiError('invalid_value', `'type' must be an event that clients send, but got ${describe(type)}.`, 'type')
}
