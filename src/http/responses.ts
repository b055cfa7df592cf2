// POST /v1/responses. A whole answer is the stream of its events, read to the end.

import { ApiError } from '../errors.js'
import type { Delta, PreparedRequest } from '../generation/request.js'
import type { ChatMessage } from '../generation/template.js'
import { newId, now, sampling } from './answer.js'
import type { Call, Reply } from './call.js'
import { type ChatTokenChoice, showTokens } from './chat_tokens.js'
import { obfuscation } from './obfuscation.js'
import { admit, mostTokens } from './rate_limits.js'
import { checkModel, needModel } from './ready.js'
import { beginRequest, tell } from './record.js'
import { parseResponse, responseFieldNames, type ValidResponse } from './response_schema.js'
import {
  eventNumbers,
  type OutputMessage,
  type OutputText,
  type ResponseEvent,
  type ResponseObject,
} from './response_shapes.js'
import type { StoredResponse } from './response_store.js'
import { UsageCount } from './usage.js'

/** The newest response of a connection, which it may continue even where it is not kept for others. */
export interface Latest {
  stored: StoredResponse | null
}

export async function createResponse(call: Call, input: unknown, latest: Latest = { stored: null }): Promise<Reply> {
  const { generation } = needModel(call.state)
  const body = parseResponse(input, call.state.log)
  checkModel(call.state, body.model)
  const conversation = conversationOf(call, body, latest)
  const prepared = await prepare(call, body, conversation)
  admit(call, mostTokens(prepared))
  const response = newResponse(call, body, prepared)
  const stored: StoredResponse = { response, conversation, numAnswers: 0, cancel: null }
  latest.stored = stored
  if (body.background) return { json: runInBackground(call, body, prepared, stored) }
  const deltas = generation.generate(prepared, call.signal)
  const stream = events(call, body, prepared, stored, deltas)
  if (body.stream) return { events: stream }
  for await (const _ of stream); // its last state is the answer
  return { json: stored.response }
}

/** POST /v1/responses/input_tokens */
export async function countInputTokens(call: Call, input: unknown): Promise<Reply> {
  const body = parseResponse(input, call.state.log)
  checkModel(call.state, body.model)
  const { num_prompt_tokens } = await prepare(call, body, conversationOf(call, body, { stored: null }))
  return { json: { object: 'response.input_tokens', input_tokens: num_prompt_tokens } }
}

/** What was said before, and what is said now. */
function conversationOf(call: Call, body: ValidResponse, { stored }: Latest): readonly ChatMessage[] {
  const { previous_response_id, input } = body
  if (previous_response_id === undefined) return input
  const continues = stored?.response.id === previous_response_id && stored.numAnswers > 0
  const previous = continues ? stored : call.state.responses.get(previous_response_id, 'previous_response_id')
  const { status } = previous.response
  if (status === 'queued' || status === 'in_progress') {
    throw new ApiError(
      'invalid_value',
      "'previous_response_id' names a response that has no answer yet. Wait for its end.",
      'previous_response_id',
    )
  }
  return [...previous.conversation, ...input]
}

function prepare(call: Call, body: ValidResponse, conversation: readonly ChatMessage[]): Promise<PreparedRequest> {
  const { instructions, reasoning } = body
  // Instructions are this turn's alone: they are no part of the conversation.
  const messages =
    instructions === undefined ? conversation : [{ role: 'system' as const, content: instructions }, ...conversation]
  const effort = reasoning?.effort ?? 'none'
  return needModel(call.state).generation.prepareChat(
    messages,
    {
      ...sampling(body),
      max_tokens: body.max_output_tokens,
      max_tokens_param: 'max_output_tokens',
      num_logprobs: wantsLogprobs(body) ? (body.top_logprobs ?? 0) : undefined,
    },
    { variables: effort === 'none' ? {} : { reasoning_effort: effort }, names: responseFieldNames },
    call.signal,
  )
}

function wantsLogprobs({ include = [], top_logprobs = 0 }: ValidResponse): boolean {
  return include.includes('message.output_text.logprobs') || top_logprobs > 0
}

function newResponse(call: Call, body: ValidResponse, prepared: PreparedRequest): ResponseObject {
  return {
    id: newId('resp_'),
    object: 'response',
    access_programs: null,
    created_at: now(),
    status: body.background ? 'queued' : 'in_progress',
    completed_at: null,
    background: body.background ?? false,
    error: null,
    incomplete_details: null,
    instructions: body.instructions ?? null,
    max_output_tokens: body.max_output_tokens ?? null,
    metadata: body.metadata ?? {},
    model: call.state.modelName,
    output: [],
    output_text: '',
    parallel_tool_calls: body.parallel_tool_calls ?? true,
    previous_response_id: body.previous_response_id ?? null,
    service_tier: 'default',
    store: body.store ?? true,
    // Those of the model where the request has none.
    temperature: prepared.sampling.temperature ?? 1,
    text: { format: { type: 'text' } },
    tool_choice: body.tool_choice ?? 'auto',
    tools: [],
    top_logprobs: body.top_logprobs ?? 0,
    top_p: prepared.sampling.top_p ?? 1,
    truncation: 'disabled',
    ...(body.user === undefined ? {} : { user: body.user }),
  }
}

/**
 * All events of a response; `stored.response` is its newest state, and is kept at the end unless the request says otherwise.
 * Nothing comes before the first token: until then an error can still have its HTTP status. Later it is an event, if anybody reads them.
 */
async function* events(
  call: Call,
  body: ValidResponse,
  prepared: PreparedRequest,
  stored: StoredResponse,
  deltas: AsyncGenerator<Delta>,
): AsyncGenerator<ResponseEvent> {
  const number = eventNumbers()
  const count = new UsageCount(call.record, prepared)
  const place = { item_id: newId('msg_'), output_index: 0, content_index: 0 }
  const part = (text: string, logprobs: ChatTokenChoice[]): OutputText => ({
    type: 'output_text',
    text,
    annotations: [],
    logprobs,
  })
  const message = (status: OutputMessage['status'], content: OutputMessage['content']): OutputMessage => ({
    id: place.item_id,
    type: 'message',
    status,
    role: 'assistant',
    content,
  })
  const change = (more: Partial<ResponseObject>) => {
    stored.response = { ...stored.response, ...more }
    return stored.response
  }
  let text = ''
  let finish: Delta['finish_reason'] = null
  const logprobs: ChatTokenChoice[] = []
  let begun = false
  try {
    for await (const delta of deltas) {
      if (!begun) {
        begun = true
        const response = change({ status: 'in_progress' })
        yield number({ type: 'response.created', response })
        yield number({ type: 'response.in_progress', response })
        yield number({ type: 'response.output_item.added', output_index: 0, item: message('in_progress', []) })
        yield number({ type: 'response.content_part.added', ...place, part: part('', []) })
      }
      count.add(delta)
      text += delta.text
      finish = delta.finish_reason
      const shown = wantsLogprobs(body) ? showTokens(delta.tokens) : []
      logprobs.push(...shown)
      if (delta.text !== '' || shown.length > 0) {
        const told = { delta: delta.text, logprobs: shown }
        const filling = body.stream_options?.include_obfuscation ? obfuscation(told) : {}
        yield number({ type: 'response.output_text.delta', ...place, ...told, ...filling })
      }
    }
    if (finish === null) return // the client is gone, or the response was cancelled
  } catch (error) {
    if (!begun || !body.stream) throw error
    const told = tell(error, call.state, call.record)
    const response = change({ status: 'failed', error: { code: 'server_error', message: told.message } })
    if (response.store) call.state.responses.put(stored)
    const { code, message, param } = told.body().error
    yield number({ type: 'error', code, message, param })
    yield number({ type: 'response.failed', response })
    return
  }
  const status = finish === 'length' ? 'incomplete' : 'completed'
  const whole = part(text, logprobs)
  const item = message(status, [whole])
  yield number({ type: 'response.output_text.done', ...place, text, logprobs })
  yield number({ type: 'response.content_part.done', ...place, part: whole })
  yield number({ type: 'response.output_item.done', output_index: 0, item })
  const { usage } = count
  const response = change({
    status,
    completed_at: status === 'completed' ? now() : null,
    incomplete_details: status === 'incomplete' ? { reason: 'max_output_tokens' } : null,
    output: [item],
    output_text: text,
    usage: {
      input_tokens: usage.prompt_tokens,
      input_tokens_details: { ...usage.prompt_tokens_details, cache_write_tokens: 0 },
      output_tokens: usage.completion_tokens,
      output_tokens_details: usage.completion_tokens_details,
      total_tokens: usage.total_tokens,
    },
  })
  stored.conversation = [...stored.conversation, { role: 'assistant', content: text }]
  stored.numAnswers = 1
  if (response.store) call.state.responses.put(stored)
  yield number({ type: status === 'incomplete' ? 'response.incomplete' : 'response.completed', response })
}

/** Starts a response that nobody waits for. @returns its first state */
function runInBackground(
  call: Call,
  body: ValidResponse,
  prepared: PreparedRequest,
  stored: StoredResponse,
): ResponseObject {
  const { state } = call
  const controller = new AbortController()
  // It goes on behind its request's end: a request of its own, which has what was reserved for it.
  const record = beginRequest(state, `${call.record.id}-background`, 'POST', '/v1/responses')
  const { reserved_tokens } = call.record
  if (reserved_tokens !== undefined) Object.assign(record, { reserved_tokens })
  delete call.record.reserved_tokens
  stored.cancel = () => controller.abort()
  state.responses.put(stored)
  const first = stored.response
  const run = async () => {
    try {
      const deltas = needModel(state).generation.generate(prepared, controller.signal)
      for await (const _ of events({ ...call, record }, body, prepared, stored, deltas));
      if (controller.signal.aborted) stored.response = { ...stored.response, status: 'cancelled' }
      record.end(controller.signal.aborted ? 499 : 200)
    } catch (error) {
      const { message, status } = tell(error, state, record)
      stored.response = { ...stored.response, status: 'failed', error: { code: 'server_error', message } }
      record.end(status)
    }
    stored.cancel = null
  }
  run()
  return first
}
