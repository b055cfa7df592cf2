// What a realtime client sends: unknown comes in, sessions, responses and items go out.

import { z } from 'zod'
import type { Log } from '../../log.js'
import { newId } from '../answer.js'
import { metadataSchema } from '../fields.js'
import { samplingFields } from '../schema.js'
import { refuseUnsupported } from '../unsupported.js'
import { custom, describe, fieldsOf, parse } from '../validate.js'
import type { Item } from './conversation.js'
import type { Message } from './session.js'

const maxTokensSchema = z.unknown().transform((value, ctx): number | 'inf' => {
  if (value === 'inf') return 'inf'
  const valid = typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 16777216
  return valid
    ? value
    : custom(ctx, 'invalid_value', `must be an integer from 1 to 16777216 or "inf", but got ${describe(value)}`)
})

/** What a session says for all its responses, and a response for itself; sampling is of Parley's own. */
const sharedFields = {
  ...samplingFields,
  instructions: z.string().optional(),
  max_output_tokens: maxTokensSchema.optional(),
  parallel_tool_calls: z.boolean().optional(),
  tool_choice: z.enum(['auto', 'none']).optional(),
  reasoning: z.object({ effort: z.string().max(64).nullish() }).optional(),
  // Nothing but text, or they have been refused.
  type: z.unknown().optional(),
  output_modalities: z.unknown().optional(),
  modalities: z.unknown().optional(),
  tools: z.unknown().optional(),
  truncation: z.unknown().optional(),
  include: z.unknown().optional(),
}

const sessionSchema = z.object({ ...sharedFields, model: z.string().optional() })

const contentTypes = { system: ['input_text'], user: ['input_text'], assistant: ['output_text', 'text'] }

const itemSchema = z.unknown().transform((value, ctx): Item => {
  if (typeof value !== 'object' || value === null) {
    return custom(ctx, 'invalid_type', `must be an object, but got ${describe(value)}`)
  }
  const { id, type = 'message', role, content } = value as Record<string, unknown>
  if (type !== 'message') {
    const message = `must be "message", the only kind of item that this server supports, but got ${describe(type)}`
    return custom(ctx, 'unsupported_value', message, ['type'])
  }
  if (role !== 'system' && role !== 'user' && role !== 'assistant') {
    const message = `must be one of "system", "user", "assistant", but got ${describe(role)}`
    return custom(ctx, 'invalid_value', message, ['role'])
  }
  if (id != null && (typeof id !== 'string' || !/^[\w.-]{1,64}$/.test(id))) {
    return custom(ctx, 'invalid_value', `must have 1 to 64 letters, digits, '_', '-' or '.', but got ${describe(id)}`, [
      'id',
    ])
  }
  if (!Array.isArray(content)) {
    return custom(ctx, 'invalid_type', `must be an array of content parts, but got ${describe(content)}`, ['content'])
  }
  const texts: string[] = []
  for (const [i, part] of content.entries()) {
    const { type: kind, text } = (part ?? {}) as Record<string, unknown>
    const [wanted = ''] = contentTypes[role]
    if (!contentTypes[role].includes(String(kind))) {
      const message = `must be "${wanted}", the only kind of content of ${role} messages that this server supports, but got ${describe(kind)}`
      return custom(ctx, 'unsupported_value', message, ['content', i, 'type'])
    }
    if (typeof text !== 'string') {
      return custom(ctx, 'invalid_type', `must be a string, but got ${describe(text)}`, ['content', i, 'text'])
    }
    texts.push(text)
  }
  return {
    id: typeof id === 'string' ? id : newId('item_'),
    object: 'realtime.item',
    type: 'message',
    status: 'completed',
    role,
    content: texts.map((text) => ({ type: role === 'assistant' ? 'output_text' : 'input_text', text })),
  }
})

const responseSchema = z.object({
  ...sharedFields,
  conversation: z.enum(['auto', 'none']).optional(),
  input: z.array(itemSchema).optional(),
  metadata: metadataSchema.optional(),
})

/** Characters of the client's own name of an event, at most. */
export const maxEventIdLength = 512

const eventFields = { type: z.string(), event_id: z.string().max(maxEventIdLength).optional() }
const createItemSchema = z.object({ ...eventFields, item: itemSchema, previous_item_id: z.string().optional() })
const itemIdSchema = z.object({ ...eventFields, item_id: z.string() })
const cancelSchema = z.object({ ...eventFields, response_id: z.string().optional() })

export type SessionFields = z.infer<typeof sessionSchema>
export type ResponseFields = z.infer<typeof responseSchema>

/** @throws ApiError naming what is wrong, as all of these */
export function parseSession(value: unknown, log: Log): SessionFields {
  const fields = fieldsOf(value, 'session')
  refuseUnsupported('realtime', fields)
  return parse(sessionSchema, fields, log)
}

export function parseResponse(value: unknown, log: Log): ResponseFields {
  const fields = fieldsOf(value ?? {}, 'response')
  refuseUnsupported('realtime', fields)
  return parse(responseSchema, fields, log)
}

export function parseCreateItem(message: Message, log: Log): z.infer<typeof createItemSchema> {
  return parse(createItemSchema, fieldsOf(message), log)
}

export function parseItemId(message: Message, log: Log): string {
  return parse(itemIdSchema, fieldsOf(message), log).item_id
}

export function parseCancel(message: Message, log: Log): string | undefined {
  return parse(cancelSchema, fieldsOf(message), log).response_id
}
