// Request bodies: unknown comes in, Valid* goes out. Each wrong field is told in one readable sentence.

import { z } from 'zod'
import { ApiError, type ErrorKind } from '../errors.js'
import type { Log } from '../log.js'
import { refuseUnsupported } from './unsupported.js'

type Issue = z.core.$ZodIssue

/** Prompts × n of one request, at most. */
const maxChoices = 2048
/** UTF-16 units of a stop string, at most. */
const maxStopLength = 2048
/** lm-evaluation-harness sends more than OpenAI's 4. */
const maxStops = 64

/** An issue that carries its own row of errors.ts and its own sentence. */
function custom(ctx: z.RefinementCtx, kind: ErrorKind, message: string, path: (string | number)[] = []): never {
  ctx.addIssue({ code: 'custom', message, path, params: { kind } })
  return z.NEVER
}

const stopSchema = z.unknown().transform((value, ctx): string[] => {
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
    if (/\p{Surrogate}/u.test(stop)) return custom(ctx, 'invalid_value', 'must not hold half of a surrogate pair', path)
  }
  return list
})

const logitBiasSchema = z.unknown().transform((value, ctx): Map<number, number> => {
  const form = 'must be an object of token ids and numbers from -100 to 100'
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    return custom(ctx, 'invalid_type', `${form}, but got ${describe(value)}`)
  }
  const biases = new Map<number, number>()
  for (const [id, bias] of Object.entries(value)) {
    if (!/^(0|[1-9]\d{0,9})$/.test(id)) return custom(ctx, 'invalid_value', `${form}, but got the key ${describe(id)}`)
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

// OpenAI's seed is a 64-bit integer; JavaScript and the engine hold 53 bits of it, the same ones each time.
const seedSchema = z.unknown().transform((value, ctx): number => {
  if (typeof value !== 'number' || !Number.isInteger(value)) {
    return custom(ctx, 'invalid_type', `must be an integer, but got ${describe(value)}`)
  }
  if (value < -(2 ** 63))
    return custom(ctx, 'integer_below_min_value', `must be at least ${-(2n ** 63n)}, but got ${value}`)
  if (value > 2 ** 63)
    return custom(ctx, 'integer_above_max_value', `must be at most ${2n ** 63n - 1n}, but got ${value}`)
  return Number(BigInt.asUintN(53, BigInt(value)))
})

const promptSchema = z.unknown().transform((value, ctx): (string | number[])[] => {
  if (typeof value === 'string') return [value]
  const forms = 'must be a string, an array of strings, an array of token ids or an array of arrays of token ids'
  if (!Array.isArray(value)) return custom(ctx, 'invalid_type', `${forms}, but got ${describe(value)}`)
  if (value.length === 0) return custom(ctx, 'empty_array', 'must not be an empty array')
  const tokenIds = (list: unknown[], path: number[]): number[] => {
    for (const [i, id] of list.entries()) {
      if (typeof id !== 'number' || !Number.isInteger(id)) {
        return custom(ctx, 'invalid_type', `must be a token id, but got ${describe(id)}`, [...path, i])
      }
      if (id < 0) return custom(ctx, 'integer_below_min_value', `must be at least 0, but got ${id}`, [...path, i])
    }
    return list as number[]
  }
  if (typeof value[0] === 'number') return [tokenIds(value, [])]
  if (value.length > maxChoices) {
    return custom(ctx, 'array_above_max_length', `must have at most ${maxChoices} prompts, but got ${value.length}`)
  }
  const prompts: (string | number[])[] = []
  for (const [i, prompt] of value.entries()) {
    if (typeof prompt === 'string') prompts.push(prompt)
    else if (Array.isArray(prompt)) prompts.push(tokenIds(prompt, [i]))
    else
      return custom(ctx, 'invalid_type', `must be a string or an array of token ids, but got ${describe(prompt)}`, [i])
  }
  return prompts
})

const maxTokensSchema = z.int().min(1).max(16777216)

const sharedFields = {
  model: z.string().optional(),
  max_tokens: maxTokensSchema.optional(),
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().min(0).max(1).optional(),
  // -1 and 0 both mean all, as in vLLM.
  top_k: z.int().min(-1).max(4194304).optional(),
  min_p: z.number().min(0).max(1).optional(),
  seed: seedSchema.optional(),
  stop: stopSchema.optional(),
  n: z.int().min(1).max(128).optional(),
  stream: z.boolean().optional(),
  stream_options: z.object({ include_usage: z.boolean().nullish() }).optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  logit_bias: logitBiasSchema.optional(),
  ignore_eos: z.boolean().optional(),
  user: z.string().optional(),
}

const completionSchema = z.object({
  ...sharedFields,
  prompt: promptSchema.optional(),
  logprobs: z.int().min(0).max(20).optional(),
})

const contentSchema = z.unknown().transform((value, ctx): string => {
  if (typeof value === 'string') return value
  if (value === undefined) return custom(ctx, 'missing_required_parameter', 'is missing')
  if (!Array.isArray(value)) {
    return custom(ctx, 'invalid_type', `must be a string or an array of content parts, but got ${describe(value)}`)
  }
  const texts: string[] = []
  for (const [i, part] of value.entries()) {
    const { type, text } = (typeof part === 'object' && part !== null ? part : {}) as { type?: unknown; text?: unknown }
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

const roleSchema = z.unknown().transform((role, ctx): 'system' | 'user' | 'assistant' => {
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

const chatSchema = z.object({
  ...sharedFields,
  messages: z.array(z.object({ role: roleSchema, content: contentSchema, name: z.string().nullish() })).min(1),
  max_completion_tokens: maxTokensSchema.optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
})

export type ValidCompletion = z.infer<typeof completionSchema>
export type ValidChat = Omit<z.infer<typeof chatSchema>, 'messages'> & {
  messages: { role: 'system' | 'user' | 'assistant'; content: string; name?: string }[]
}

/** @throws ApiError naming the first wrong field, and in its message up to four more */
export function parseCompletion(body: unknown, log: Log): ValidCompletion {
  const fields = fieldsOf(body)
  refuseUnsupported('completions', fields)
  const valid = parse(completionSchema, fields, log)
  checkTogether(valid)
  const choices = (valid.prompt?.length ?? 1) * (valid.n ?? 1)
  if (choices > maxChoices) {
    throw new ApiError(
      'array_above_max_length',
      `'prompt' times 'n' must be at most ${maxChoices} completions, but got ${choices}.`,
      'prompt',
    )
  }
  return valid
}

/** @throws ApiError as parseCompletion */
export function parseChat(body: unknown, log: Log): ValidChat {
  const fields = fieldsOf(body)
  refuseUnsupported('chat', fields)
  // An assistant's tool_calls stand where its content would; say what is meant instead of "content is missing".
  const messages = Array.isArray(fields.messages) ? fields.messages : []
  for (const [i, message] of messages.entries()) {
    for (const name of ['tool_calls', 'function_call', 'audio']) {
      if ((message as Record<string, unknown> | null)?.[name] != null) {
        throw new ApiError(
          'unsupported_parameter',
          `'messages.${i}.${name}' is not supported by this server yet.`,
          `messages.${i}.${name}`,
        )
      }
    }
  }
  if (fields.messages === undefined) throw missing('messages')
  const valid = parse(chatSchema, fields, log)
  checkTogether(valid)
  if (valid.top_logprobs !== undefined && valid.top_logprobs > 0 && valid.logprobs !== true) {
    throw new ApiError('invalid_value', "'top_logprobs' needs 'logprobs' to be true.", 'top_logprobs')
  }
  return {
    ...valid,
    messages: valid.messages.map(({ role, content, name }) => ({
      role,
      content,
      ...(typeof name === 'string' ? { name } : {}),
    })),
  }
}

/** The body's fields; null is the same as leaving a field out. */
function fieldsOf(body: unknown): Record<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new ApiError('invalid_type', `The body must be a JSON object, but got ${describe(body)}.`)
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

function checkTogether(valid: { stream?: boolean | undefined; stream_options?: unknown }): void {
  if (valid.stream_options !== undefined && valid.stream !== true) {
    throw new ApiError('invalid_value', "'stream_options' needs 'stream' to be true.", 'stream_options')
  }
}

function parse<T extends z.ZodObject>(schema: T, fields: Record<string, unknown>, log: Log): z.infer<T> {
  const unknown = Object.keys(fields).filter((name) => !(name in schema.shape))
  if (unknown.length > 0) log('debug', 'fields_ignored', { fields: unknown.slice(0, 20).join(',').slice(0, 200) })
  const result = schema.safeParse(fields, { reportInput: true })
  if (result.success) return result.data
  const told = result.error.issues.slice(0, 5).map(explain)
  const [first] = told
  if (first === undefined) throw new ApiError('invalid_value', 'The body is not valid.')
  throw new ApiError(first.kind, [...new Set(told.map(({ message }) => message))].join('\n'), first.param)
}

function missing(param: string): ApiError {
  return new ApiError('missing_required_parameter', `'${param}' is missing.`, param)
}

const typeNames: Record<string, string> = {
  number: 'a number',
  string: 'a string',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
}

function explain(issue: Issue): { kind: ErrorKind; message: string; param: string } {
  const param = issue.path.map(String).join('.')
  const say = (kind: ErrorKind, sentence: string) => ({ kind, message: `'${param}' ${sentence}.`, param })
  const got = `but got ${describe(issue.input)}`
  switch (issue.code) {
    case 'invalid_type':
      if (issue.input === undefined && issue.path.length > 0) return say('missing_required_parameter', 'is missing')
      return say(
        'invalid_type',
        `must be ${issue.expected !== 'boolean' && integerLike(issue) ? 'an integer' : (typeNames[issue.expected] ?? issue.expected)}, ${got}`,
      )
    case 'too_small':
      if (issue.origin === 'array') return say('empty_array', `must have at least ${issue.minimum} item, but got none`)
      return say(
        integerLike(issue) ? 'integer_below_min_value' : 'decimal_below_min_value',
        `must be at least ${issue.minimum}, ${got}`,
      )
    case 'too_big':
      return say(
        integerLike(issue) ? 'integer_above_max_value' : 'decimal_above_max_value',
        `must be at most ${issue.maximum}, ${got}`,
      )
    case 'custom': {
      const kind = issue.params?.kind as ErrorKind | undefined
      return say(kind ?? 'invalid_value', issue.message)
    }
    default:
      return say('invalid_value', issue.message)
  }
}

const integerFields = new Set(['n', 'max_tokens', 'max_completion_tokens', 'top_k', 'logprobs', 'top_logprobs'])

function integerLike(issue: Issue): boolean {
  return integerFields.has(String(issue.path.at(-1)))
}

/** A value as messages show it: short, whatever a client sends. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return String(value)
}
