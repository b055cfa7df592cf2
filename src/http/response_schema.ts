// The body of a response: unknown comes in, messages and parameters go out.

import { z } from 'zod'
import { ApiError } from '../errors.js'
import type { ChatFieldNames, ChatMessage } from '../generation/template.js'
import type { Log } from '../log.js'
import { accountFields, samplingFields, verbositySchema } from './schema.js'
import { refuseUnsupported } from './unsupported.js'
import { custom, describe, fieldsOf, parse } from './validate.js'

const textTypes = new Set(['input_text', 'output_text', 'text'])

/** A text, or messages; anything else is refused by its name. */
const inputSchema = z
  .unknown()
  .transform((value, ctx): ChatMessage[] => {
    if (typeof value === 'string') return [{ role: 'user', content: value }]
    if (value === undefined) return custom(ctx, 'missing_required_parameter', 'is missing')
    if (!Array.isArray(value)) {
      return custom(ctx, 'invalid_type', `must be a string or an array of items, but got ${describe(value)}`)
    }
    if (value.length === 0) return custom(ctx, 'empty_array', 'must have at least 1 item, but got none')
    const messages: ChatMessage[] = []
    for (const [i, item] of value.entries()) {
      if (typeof item !== 'object' || item === null) {
        return custom(ctx, 'invalid_type', `must be an object, but got ${describe(item)}`, [i])
      }
      const { type = 'message', role, content } = item as Record<string, unknown>
      if (type !== 'message') {
        const message = `must be "message", the only kind of item that this server supports, but got ${describe(type)}`
        return custom(ctx, 'unsupported_value', message, [i, 'type'])
      }
      if (role !== 'system' && role !== 'developer' && role !== 'user' && role !== 'assistant') {
        const roles = '"system", "developer", "user", "assistant"'
        return custom(ctx, 'invalid_value', `must be one of ${roles}, but got ${describe(role)}`, [i, 'role'])
      }
      const parts = typeof content === 'string' ? [{ type: 'text', text: content }] : content
      if (!Array.isArray(parts)) {
        const message = `must be a string or an array of content parts, but got ${describe(content)}`
        return custom(ctx, 'invalid_type', message, [i, 'content'])
      }
      const texts: string[] = []
      for (const [j, part] of parts.entries()) {
        const { type: kind, text } = (part ?? {}) as Record<string, unknown>
        if (!textTypes.has(String(kind))) {
          const message = `must be "input_text" or "output_text", the only kinds of content that this server supports, but got ${describe(kind)}`
          return custom(ctx, 'unsupported_value', message, [i, 'content', j, 'type'])
        }
        if (typeof text !== 'string') {
          return custom(ctx, 'invalid_type', `must be a string, but got ${describe(text)}`, [i, 'content', j, 'text'])
        }
        texts.push(text)
      }
      messages.push({
        role: role === 'developer' ? 'system' : role,
        content: texts.join(role === 'assistant' ? '' : '\n'),
      })
    }
    return messages
  })
  .meta({
    anyOf: [
      { type: 'string' },
      {
        type: 'array',
        items: {
          type: 'object',
          properties: {
            type: { const: 'message' },
            role: { enum: ['system', 'developer', 'user', 'assistant'] },
            content: {
              anyOf: [
                { type: 'string' },
                {
                  type: 'array',
                  items: {
                    type: 'object',
                    properties: { type: { enum: ['input_text', 'output_text', 'text'] }, text: { type: 'string' } },
                    required: ['type', 'text'],
                  },
                },
              ],
            },
          },
          required: ['role', 'content'],
        },
        minItems: 1,
      },
    ],
  })

export const responseSchema = z.object({
  ...samplingFields,
  ...accountFields,
  model: z.string().optional(),
  input: inputSchema,
  instructions: z.string().optional(),
  previous_response_id: z.string().optional(),
  // OpenAI's least.
  max_output_tokens: z.int().min(16).max(16777216).optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
  include: z.array(z.enum(['message.output_text.logprobs', 'reasoning.encrypted_content'])).optional(),
  stream: z.boolean().optional(),
  background: z.boolean().optional(),
  tool_choice: z.enum(['auto', 'none']).optional(),
  parallel_tool_calls: z.boolean().optional(),
  text: z.object({ verbosity: verbositySchema.nullish() }).optional(),
  reasoning: z.object({ effort: z.string().max(64).nullish() }).optional(),
  stream_options: z.object({ include_obfuscation: z.boolean().nullish() }).optional(),
})

/** What a response calls the fields of a chat. */
export const responseFieldNames: ChatFieldNames = { messages: 'input', reasoning_effort: 'reasoning.effort' }

export type ValidResponse = z.infer<typeof responseSchema>

/** @throws ApiError naming what is wrong */
export function parseResponse(body: unknown, log: Log): ValidResponse {
  const fields = fieldsOf(body)
  refuseUnsupported('responses', fields)
  const valid = parse(responseSchema, fields, log)
  if (valid.background && valid.store === false) {
    throw new ApiError('invalid_value', "'background' needs 'store', or nobody could ask for the answer.", 'background')
  }
  if (valid.background && valid.stream) {
    throw new ApiError(
      'unsupported_parameter',
      "'background' and 'stream' together are not supported yet.",
      'background',
    )
  }
  return valid
}
