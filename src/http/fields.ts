// Fields that several bodies have, each told in one sentence when it is wrong.

import { z } from 'zod'
import { custom, describe } from './validate.js'

/** Prompts × n of one request, at most. */
export const maxChoices = 2048
/** UTF-16 units of a stop string, at most. */
const maxStopLength = 2048
/** lm-evaluation-harness sends more than OpenAI's 4. */
const maxStops = 64
/** Tokens with a bias, at most. */
const maxBiases = 1024

export const stopSchema = z
  .unknown()
  .transform((value, ctx): string[] => {
    const list = typeof value === 'string' ? [value] : value
    if (!Array.isArray(list))
      return custom(ctx, 'invalid_type', `must be a string or an array of strings, but got ${describe(value)}`)
    if (list.length > maxStops) {
      return custom(ctx, 'array_above_max_length', `must have at most ${maxStops} items, but got ${list.length}`)
    }
    for (const [i, stop] of list.entries()) {
      const path = list === value ? [i] : []
      if (typeof stop !== 'string')
        return custom(ctx, 'invalid_type', `must be a string, but got ${describe(stop)}`, path)
      if (stop === '') return custom(ctx, 'empty_string', 'must not be an empty string', path)
      if (stop.length > maxStopLength) {
        return custom(
          ctx,
          'string_above_max_length',
          `must have at most ${maxStopLength} characters, but got ${stop.length}`,
          path,
        )
      }
      if (/\p{Surrogate}/u.test(stop))
        return custom(ctx, 'invalid_value', 'must not hold half of a surrogate pair', path)
    }
    return list
  })
  .meta({ anyOf: [{ type: 'string' }, { type: 'array', items: { type: 'string' }, maxItems: maxStops }] })

export const logitBiasSchema = z
  .unknown()
  .transform((value, ctx): Map<number, number> => {
    const form = 'must be an object of token ids and numbers from -100 to 100'
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return custom(ctx, 'invalid_type', `${form}, but got ${describe(value)}`)
    }
    const biases = new Map<number, number>()
    const entries = Object.entries(value)
    if (entries.length > maxBiases) {
      return custom(ctx, 'array_above_max_length', `must have at most ${maxBiases} entries, but got ${entries.length}`)
    }
    for (const [id, bias] of entries) {
      if (!/^(0|[1-9]\d{0,9})$/.test(id))
        return custom(ctx, 'invalid_value', `${form}, but got the key ${describe(id)}`)
      if (typeof bias !== 'number')
        return custom(ctx, 'invalid_type', `must be a number, but got ${describe(bias)}`, [id])
      if (!(bias >= -100))
        return custom(ctx, 'decimal_below_min_value', `must be at least -100, but got ${describe(bias)}`, [id])
      if (!(bias <= 100))
        return custom(ctx, 'decimal_above_max_value', `must be at most 100, but got ${describe(bias)}`, [id])
      biases.set(Number(id), bias)
    }
    return biases
  })
  .meta({ type: 'object', additionalProperties: { type: 'number', minimum: -100, maximum: 100 } })

// OpenAI's seed is a 64-bit integer; JavaScript and the engine hold 53 bits of it, the same ones each time. The largest of them is
// read as 2^63, as are the numbers within 1024 of it: they are one seed.
export const seedSchema = z
  .unknown()
  .transform((value, ctx): number => {
    if (typeof value !== 'number' || !Number.isInteger(value)) {
      return custom(ctx, 'invalid_type', `must be an integer, but got ${describe(value)}`)
    }
    if (value < -(2 ** 63))
      return custom(ctx, 'integer_below_min_value', `must be at least ${-(2n ** 63n)}, but got ${value}`)
    if (value > 2 ** 63)
      return custom(ctx, 'integer_above_max_value', `must be at most ${2n ** 63n - 1n}, but got ${value}`)
    return Number(BigInt.asUintN(53, BigInt(value)))
  })
  .meta({ type: 'integer' })

/** How JSON schemas say it. */
const tokenIdsShape = { type: 'array', items: { type: 'integer', minimum: 0 } }
const promptShape = {
  anyOf: [
    { type: 'string' },
    { type: 'array', items: { anyOf: [{ type: 'string' }, tokenIdsShape] }, minItems: 1, maxItems: maxChoices },
    tokenIdsShape,
  ],
}

export const promptSchema = z.unknown().transform(promptsOf).meta(promptShape)

/** Texts or ids that are read and not continued: each has something to read. */
export const inputSchema = z
  .unknown()
  .transform((value, ctx) => {
    if (value === undefined) return custom(ctx, 'missing_required_parameter', 'is missing')
    const empty = Array.isArray(value) ? value.indexOf('') : value === '' ? -2 : -1
    if (empty === -1) return promptsOf(value, ctx)
    return custom(ctx, 'empty_string', 'must not be an empty string', empty === -2 ? [] : [empty])
  })
  .meta(promptShape)

function promptsOf(value: unknown, ctx: z.RefinementCtx): (string | number[])[] {
  if (typeof value === 'string') return [value]
  const forms = 'must be a string, an array of strings, an array of token ids or an array of arrays of token ids'
  if (!Array.isArray(value)) return custom(ctx, 'invalid_type', `${forms}, but got ${describe(value)}`)
  if (value.length === 0) return custom(ctx, 'empty_array', 'must not be an empty array')
  if (typeof value[0] === 'number') return [tokenIds(value, ctx)]
  if (value.length > maxChoices) {
    return custom(ctx, 'array_above_max_length', `must have at most ${maxChoices} prompts, but got ${value.length}`)
  }
  const prompts: (string | number[])[] = []
  for (const [i, prompt] of value.entries()) {
    if (typeof prompt === 'string') prompts.push(prompt)
    else if (Array.isArray(prompt)) prompts.push(tokenIds(prompt, ctx, [i]))
    else
      return custom(ctx, 'invalid_type', `must be a string or an array of token ids, but got ${describe(prompt)}`, [i])
  }
  return prompts
}

/** A text, or several: strings, or objects with a string `text`. */
export const textsSchema = z
  .unknown()
  .transform((value, ctx): string[] => {
    if (value === undefined) return custom(ctx, 'missing_required_parameter', 'is missing')
    const list = typeof value === 'string' ? [value] : value
    if (!Array.isArray(list)) {
      return custom(ctx, 'invalid_type', `must be a string or an array of strings, but got ${describe(value)}`)
    }
    if (list.length === 0) return custom(ctx, 'empty_array', 'must not be an empty array')
    if (list.length > maxChoices) {
      return custom(ctx, 'array_above_max_length', `must have at most ${maxChoices} texts, but got ${list.length}`)
    }
    const texts: string[] = []
    for (const [i, item] of list.entries()) {
      const path = list === value ? [i] : []
      const text = typeof item === 'object' && item !== null ? (item as { text?: unknown }).text : item
      if (typeof text !== 'string') {
        const form = 'must be a string or an object with a text'
        return custom(ctx, 'invalid_type', `${form}, but got ${describe(item)}`, path)
      }
      if (text === '') return custom(ctx, 'empty_string', 'must not be an empty string', path)
      texts.push(text)
    }
    return texts
  })
  .meta({
    anyOf: [
      { type: 'string' },
      {
        type: 'array',
        items: {
          anyOf: [{ type: 'string' }, { type: 'object', properties: { text: { type: 'string' } }, required: ['text'] }],
        },
        minItems: 1,
        maxItems: maxChoices,
      },
    ],
  })

function tokenIds(list: unknown[], ctx: z.RefinementCtx, path: number[] = []): number[] {
  for (let i = 0; i < list.length; i++) {
    const id = list[i]
    if (typeof id !== 'number' || !Number.isInteger(id)) {
      return custom(ctx, 'invalid_type', `must be a token id, but got ${describe(id)}`, [...path, i])
    }
    if (id < 0) return custom(ctx, 'integer_below_min_value', `must be at least 0, but got ${id}`, [...path, i])
  }
  return list as number[]
}

/** A list of token ids. @param max length, at most */
export function tokenIdsSchema(max: number) {
  return z
    .unknown()
    .transform((value, ctx): number[] => {
      if (!Array.isArray(value)) {
        return custom(ctx, 'invalid_type', `must be an array of token ids, but got ${describe(value)}`)
      }
      if (value.length > max) {
        return custom(ctx, 'array_above_max_length', `must have at most ${max} items, but got ${value.length}`)
      }
      return tokenIds(value, ctx)
    })
    .meta({ ...tokenIdsShape, maxItems: max })
}

export const contentSchema = z
  .unknown()
  .transform((value, ctx): string => {
    if (typeof value === 'string') return value
    if (value === undefined) return custom(ctx, 'missing_required_parameter', 'is missing')
    if (!Array.isArray(value)) {
      return custom(ctx, 'invalid_type', `must be a string or an array of content parts, but got ${describe(value)}`)
    }
    const texts: string[] = []
    for (const [i, part] of value.entries()) {
      const { type, text } = (typeof part === 'object' && part !== null ? part : {}) as {
        type?: unknown
        text?: unknown
      }
      if (typeof type !== 'string') {
        return custom(
          ctx,
          'invalid_type',
          `must be a content part such as {"type":"text","text":"…"}, but got ${describe(part)}`,
          [i],
        )
      }
      if (type !== 'text') {
        return custom(
          ctx,
          'unsupported_value',
          `must be "text", the only kind of content that this server supports, but got ${describe(type)}`,
          [i, 'type'],
        )
      }
      if (typeof text !== 'string')
        return custom(ctx, 'invalid_type', `must be a string, but got ${describe(text)}`, [i, 'text'])
      texts.push(text)
    }
    return texts.join('\n')
  })
  .meta({
    anyOf: [
      { type: 'string' },
      {
        type: 'array',
        items: {
          type: 'object',
          properties: { type: { const: 'text' }, text: { type: 'string' } },
          required: ['type', 'text'],
        },
      },
    ],
  })

export const roleSchema = z
  .unknown()
  .transform((role, ctx): 'system' | 'user' | 'assistant' => {
    if (role === 'developer') return 'system' // its newer name
    if (role === 'system' || role === 'user' || role === 'assistant') return role
    if (role === undefined) return custom(ctx, 'missing_required_parameter', 'is missing')
    if (typeof role !== 'string') return custom(ctx, 'invalid_type', `must be a string, but got ${describe(role)}`)
    const known = role === 'tool' || role === 'function'
    return custom(
      ctx,
      known ? 'unsupported_value' : 'invalid_value',
      `must be one of "system", "developer", "user", "assistant", but got ${describe(role)}${known ? ', which this server does not support yet' : ''}`,
    )
  })
  .meta({ enum: ['system', 'developer', 'user', 'assistant'] })

/** OpenAI's rules for metadata: it is kept where an answer is kept, and otherwise only checked. */
export const metadataSchema = z
  .unknown()
  .transform((value, ctx): Record<string, string> => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return custom(ctx, 'invalid_type', `must be an object of strings, but got ${describe(value)}`)
    }
    const entries = Object.entries(value)
    if (entries.length > 16) {
      return custom(ctx, 'array_above_max_length', `must have at most 16 entries, but got ${entries.length}`)
    }
    for (const [key, text] of entries) {
      if (key.length > 64) {
        return custom(ctx, 'string_above_max_length', `must have keys of at most 64 characters, but got ${key.length}`)
      }
      if (typeof text !== 'string')
        return custom(ctx, 'invalid_type', `must be a string, but got ${describe(text)}`, [key])
      if (text.length > 512) {
        return custom(ctx, 'string_above_max_length', `must have at most 512 characters, but got ${text.length}`, [key])
      }
    }
    return value as Record<string, string>
  })
  .meta({ type: 'object', additionalProperties: { type: 'string', maxLength: 512 }, maxProperties: 16 })

/** Values for the names that a chat template uses. */
export const templateVariablesSchema = z
  .unknown()
  .transform((value, ctx): Record<string, string | number | boolean | null> => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return custom(ctx, 'invalid_type', `must be an object, but got ${describe(value)}`)
    }
    for (const [name, variable] of Object.entries(value)) {
      if (variable === null || typeof variable === 'number' || typeof variable === 'boolean') continue
      if (typeof variable !== 'string') {
        const got = describe(variable)
        return custom(ctx, 'invalid_type', `must be a string, a number, true, false or null, but got ${got}`, [name])
      }
      if (variable.length > 4096) {
        const message = `must have at most 4096 characters, but got ${variable.length}`
        return custom(ctx, 'string_above_max_length', message, [name])
      }
    }
    return value as Record<string, string | number | boolean | null>
  })
  .meta({ type: 'object', additionalProperties: { type: ['string', 'number', 'boolean', 'null'] } })
