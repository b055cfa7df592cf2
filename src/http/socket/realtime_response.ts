// One response of a realtime session: what it reads, and its events.

import type { ApiError } from '../../errors.js'
import type { Delta } from '../../generation/request.js'
import type { ChatMessage } from '../../generation/template.js'
import { newId, sampling } from '../answer.js'
import type { Call } from '../call.js'
import { admit, mostTokens } from '../rate_limits.js'
import { needModel } from '../ready.js'
import { tell } from '../record.js'
import { responseFieldNames } from '../response_schema.js'
import { type Usage, UsageCount } from '../usage.js'
import type { Conversation, Item } from './conversation.js'
import type { ResponseFields } from './realtime_schema.js'

/** An event of the server, without its id. */
export interface RealtimeEvent {
  type: string
  [name: string]: unknown
}

/** OpenAI's object, as far as this server makes it. */
export interface RealtimeResponse {
  id: string
  object: 'realtime.response'
  status: 'in_progress' | 'completed' | 'cancelled' | 'failed' | 'incomplete'
  status_details: {
    type: RealtimeResponse['status']
    reason?: 'client_cancelled' | 'max_output_tokens'
    error?: { type: string; code: string | null; message: string }
  } | null
  output: Item[]
  conversation_id: string | null
  output_modalities: ['text']
  max_output_tokens: number | 'inf'
  metadata: Record<string, string> | null
  usage: object | null
}

export function newResponse(fields: ResponseFields, conversation: Conversation | null): RealtimeResponse {
  return {
    id: newId('resp_'),
    object: 'realtime.response',
    status: 'in_progress',
    status_details: null,
    output: [],
    conversation_id: conversation?.id ?? null,
    output_modalities: ['text'],
    max_output_tokens: fields.max_output_tokens ?? 'inf',
    metadata: fields.metadata ?? null,
    usage: null,
  }
}

/**
 * The events of a response. A response that is cancelled or fails ends like every other, with response.done.
 * @param input what was said
 * @param conversation what the answer becomes a part of, or null
 * @throws ApiError before the first event
 */
export async function* responseEvents(
  call: Call,
  fields: ResponseFields,
  input: readonly ChatMessage[],
  response: RealtimeResponse,
  conversation: Conversation | null,
): AsyncGenerator<RealtimeEvent> {
  const { generation } = needModel(call.state)
  const { instructions = '', max_output_tokens, reasoning } = fields
  const effort = reasoning?.effort ?? 'none'
  const prepared = await generation.prepareChat(
    instructions === '' ? input : [{ role: 'system', content: instructions }, ...input],
    {
      ...sampling(fields),
      max_tokens: max_output_tokens === 'inf' ? undefined : max_output_tokens,
      max_tokens_param: 'max_output_tokens',
      num_logprobs: undefined,
    },
    { variables: effort === 'none' ? {} : { reasoning_effort: effort }, names: responseFieldNames },
    call.signal,
  )
  admit(call, mostTokens(prepared))
  const count = new UsageCount(call.record, prepared)
  const item: Item = {
    ...{ id: newId('item_'), object: 'realtime.item', type: 'message' },
    ...{ status: 'in_progress', role: 'assistant', content: [] },
  }
  const inResponse = { response_id: response.id, output_index: 0 }
  const inItem = { ...inResponse, item_id: item.id, content_index: 0 }
  const before = conversation?.insert(item, undefined) ?? null
  yield { type: 'response.created', response }
  const { rate_limits } = call.record
  if (rate_limits) yield { type: 'rate_limits.updated', rate_limits }
  yield { type: 'response.output_item.added', ...inResponse, item }
  if (conversation) yield { type: 'conversation.item.added', previous_item_id: before, item }
  yield { type: 'response.content_part.added', ...inItem, part: { type: 'text', text: '' } }

  let text = ''
  let finish: Delta['finish_reason'] = null
  let failure: ApiError | null = null
  try {
    for await (const delta of generation.generate(prepared, call.signal)) {
      count.add(delta)
      text += delta.text
      finish = delta.finish_reason
      if (delta.text !== '') yield { type: 'response.output_text.delta', ...inItem, delta: delta.text }
    }
  } catch (error) {
    failure = tell(error, call.state, call.record)
  }
  item.status = finish === 'stop' ? 'completed' : 'incomplete'
  item.content = [{ type: 'output_text', text }]
  yield { type: 'response.output_text.done', ...inItem, text }
  yield { type: 'response.content_part.done', ...inItem, part: { type: 'text', text } }
  if (conversation) yield { type: 'conversation.item.done', previous_item_id: before, item }
  yield { type: 'response.output_item.done', ...inResponse, item }
  response.status_details = detailsOf(finish, failure)
  response.status = response.status_details?.type ?? 'completed'
  response.output = [item]
  response.usage = usageOf(count.usage)
  yield { type: 'response.done', response }
}

function detailsOf(finish: Delta['finish_reason'], failure: ApiError | null): RealtimeResponse['status_details'] {
  if (failure) {
    const { type, code, message } = failure.body().error
    return { type: 'failed', error: { type, code, message } }
  }
  if (finish === 'length') return { type: 'incomplete', reason: 'max_output_tokens' }
  return finish === null ? { type: 'cancelled', reason: 'client_cancelled' } : null
}

function usageOf({ prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details }: Usage) {
  const { cached_tokens } = prompt_tokens_details
  return {
    total_tokens,
    input_tokens: prompt_tokens,
    output_tokens: completion_tokens,
    input_token_details: {
      ...{ text_tokens: prompt_tokens, audio_tokens: 0, image_tokens: 0, cached_tokens },
      cached_tokens_details: { text_tokens: cached_tokens, audio_tokens: 0, image_tokens: 0 },
    },
    output_token_details: { text_tokens: completion_tokens, audio_tokens: 0 },
  }
}
