// POST /v1/messages and /v1/messages/count_tokens: Anthropic's API.

import { z } from 'zod'
import type { Delta, PreparedRequest } from '../generation/request.js'
import type { ChatMessage } from '../generation/template.js'
import { newId } from './answer.js'
import type { Call, Reply } from './call.js'
import { contentSchema, stopSchema } from './fields.js'
import { admit, mostTokens } from './rate_limits.js'
import { checkModel, needModel } from './ready.js'
import { refuseUnsupported } from './unsupported.js'
import { UsageCount } from './usage.js'
import { fieldsOf, parse } from './validate.js'

const promptFields = {
  model: z.string().optional(),
  messages: z.array(z.object({ role: z.enum(['user', 'assistant', 'system']), content: contentSchema })).min(1),
  system: contentSchema.optional(),
}

export const countSchema = z.object(promptFields)

export const messageSchema = z.object({
  ...promptFields,
  max_tokens: z.int().min(1).max(16777216),
  temperature: z.number().min(0).max(1).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(0).max(4194304).optional(),
  stop_sequences: stopSchema.optional(),
  stream: z.boolean().optional(),
  metadata: z.object({ user_id: z.string().nullish() }).optional(),
  service_tier: z.enum(['auto', 'standard_only']).optional(),
})

type ValidMessage = z.infer<typeof messageSchema>

export interface MessageUsage {
  input_tokens: number
  output_tokens: number
  cache_creation: null
  cache_creation_input_tokens: number
  cache_read_input_tokens: number
  inference_geo: null
  output_tokens_details: null
  server_tool_use: null
  service_tier: 'standard'
  speed: null
}

interface TextBlock {
  type: 'text'
  text: string
  citations: null
}

type StopReason = 'end_turn' | 'max_tokens' | 'stop_sequence' | 'model_context_window_exceeded'

export interface Message {
  id: string
  type: 'message'
  role: 'assistant'
  model: string
  content: TextBlock[]
  stop_reason: StopReason | null
  stop_sequence: string | null
  stop_details: null
  container: null
  diagnostics: null
  usage: MessageUsage
}

export type MessageEvent =
  | { type: 'message_start'; message: Message }
  | { type: 'content_block_start'; index: number; content_block: TextBlock }
  | { type: 'content_block_delta'; index: number; delta: { type: 'text_delta'; text: string } }
  | { type: 'content_block_stop'; index: number }
  | {
      type: 'message_delta'
      delta: Pick<Message, 'stop_reason' | 'stop_sequence' | 'stop_details' | 'container'>
      usage: MessageUsage
    }
  | { type: 'message_stop' }
  | { type: 'ping' }

export async function createMessage(call: Call, input: unknown): Promise<Reply> {
  const { generation } = needModel(call.state)
  const fields = fieldsOf(input)
  refuseUnsupported('messages', fields)
  const body = parse(messageSchema, fields, call.state.log)
  checkModel(call.state, body.model)
  const prepared = await prepare(call, body, body)
  admit(call, mostTokens(prepared))
  const stream = events(call, body, prepared, generation.generate(prepared, call.signal))
  if (body.stream) return { events: stream }
  let message = null as Message | null
  for await (const event of stream) {
    if (event.type === 'message_start') message = event.message
    else if (message === null) continue
    else if (event.type === 'content_block_start') message.content.push(event.content_block)
    else if (event.type === 'message_delta') message = { ...message, ...event.delta, usage: event.usage }
    else if (event.type === 'content_block_delta') (message.content[event.index] as TextBlock).text += event.delta.text
  }
  return { json: message ?? {} } // without one the client is gone
}

export async function countTokens(call: Call, input: unknown): Promise<Reply> {
  const fields = fieldsOf(input)
  refuseUnsupported('messages', fields)
  const body = parse(countSchema, fields, call.state.log)
  checkModel(call.state, body.model)
  const { num_prompt_tokens } = await prepare(call, body, { max_tokens: 1 })
  return { json: { input_tokens: num_prompt_tokens } }
}

function prepare(
  call: Call,
  { messages, system }: z.infer<typeof countSchema>,
  params: Partial<ValidMessage> & { max_tokens: number },
): Promise<PreparedRequest> {
  const chat: ChatMessage[] = system === undefined ? [] : [{ role: 'system', content: system }]
  // Turns of one role that follow each other are one turn.
  for (const { role, content } of messages) {
    const last = chat.at(-1)
    if (last?.role === role && role !== 'system')
      chat[chat.length - 1] = { role, content: `${last.content}\n${content}` }
    else chat.push({ role, content })
  }
  const { temperature, top_p, top_k, stop_sequences = [], max_tokens } = params
  return needModel(call.state).generation.prepareChat(
    chat,
    {
      ...{ temperature, top_p, top_k, n: 1, stop: stop_sequences, num_logprobs: undefined },
      // These clients must always say a number, and say a large one; what does not fit ends at the context's end.
      ...{ max_tokens, max_tokens_param: 'max_tokens', clamp_max_tokens: true },
    },
    // An assistant's turn at the end is one that the model continues.
    { continueFinalMessage: chat.at(-1)?.role === 'assistant', addGenerationPrompt: chat.at(-1)?.role !== 'assistant' },
    call.signal,
  )
}

/** All events of an answer; none before the first token, until which an error can still have its HTTP status. */
async function* events(
  call: Call,
  body: ValidMessage,
  prepared: PreparedRequest,
  deltas: AsyncGenerator<Delta>,
): AsyncGenerator<MessageEvent> {
  const count = new UsageCount(call.record, prepared)
  const usage = (): MessageUsage => {
    const { prompt_tokens, completion_tokens, prompt_tokens_details } = count.usage
    const { cached_tokens } = prompt_tokens_details
    return {
      input_tokens: prompt_tokens - cached_tokens, // both together are the prompt
      output_tokens: completion_tokens,
      cache_creation: null,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: cached_tokens,
      ...{
        inference_geo: null,
        output_tokens_details: null,
        server_tool_use: null,
        service_tier: 'standard',
        speed: null,
      },
    }
  }
  const open = { stop_reason: null, stop_sequence: null, stop_details: null, container: null }
  let begun = false
  for await (const delta of deltas) {
    count.add(delta)
    if (!begun) {
      begun = true
      const { modelName: model } = call.state
      const message = { id: newId('msg_'), type: 'message', role: 'assistant', model, content: [], ...open } as const
      yield { type: 'message_start', message: { ...message, content: [], diagnostics: null, usage: usage() } }
      yield { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '', citations: null } }
      yield { type: 'ping' }
    }
    if (delta.text !== '')
      yield { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: delta.text } }
    if (delta.finish_reason === null) continue
    yield { type: 'content_block_stop', index: 0 }
    const stop_sequence = typeof delta.stop_reason === 'string' ? delta.stop_reason : null
    const stop_reason = stopReason(delta, stop_sequence, count.usage.completion_tokens < body.max_tokens)
    yield { type: 'message_delta', delta: { ...open, stop_reason, stop_sequence }, usage: usage() }
    yield { type: 'message_stop' }
  }
}

function stopReason({ finish_reason }: Delta, stopSequence: string | null, clamped: boolean): StopReason {
  if (finish_reason === 'length') return clamped ? 'model_context_window_exceeded' : 'max_tokens'
  return stopSequence === null ? 'end_turn' : 'stop_sequence'
}
