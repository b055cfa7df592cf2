// A body and its schema: a valid value, or one readable sentence for each wrong field.

import { z } from 'zod'
import { ApiError, type ErrorKind } from '../errors.js'
import type { Log } from '../log.js'

type Issue = z.core.$ZodIssue

/** An issue that carries its own row of errors.ts and its own sentence. */
export function custom(ctx: z.RefinementCtx, kind: ErrorKind, message: string, path: (string | number)[] = []): never {
  ctx.addIssue({ code: 'custom', message, path, params: { kind } })
  return z.NEVER
}

/**
 * The fields of a body, or of a part of it; null is the same as leaving a field out.
 * @param param the part's name
 */
export function fieldsOf(body: unknown, param: string | null = null): Record<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    const what = param === null ? 'The body' : `'${param}'`
    throw new ApiError('invalid_type', `${what} must be a JSON object, but got ${describe(body)}.`, param)
  }
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))
}

/**
 * What the schema makes of the fields. Fields that it does not name are ignored, with a line in the log.
 * @throws ApiError naming the first wrong field, and in its message up to four more
 */
export function parse<T extends z.ZodObject>(schema: T, fields: Record<string, unknown>, log: Log): z.infer<T> {
  const unknown = Object.keys(fields).filter((name) => !(name in schema.shape))
  if (unknown.length > 0) log('debug', 'fields_ignored', { fields: unknown.slice(0, 20).join(',').slice(0, 200) })
  const result = schema.safeParse(fields, { reportInput: true })
  if (result.success) return result.data
  const [first, ...others] = sentences(result.error.issues)
  if (first === undefined) throw new ApiError('invalid_value', 'The body is not valid.')
  throw new ApiError(first.kind, [first, ...others].map(({ message }) => message).join('\n'), first.param)
}

export function missing(param: string): ApiError {
  return new ApiError('missing_required_parameter', `'${param}' is missing.`, param)
}

const typeNames: Record<string, string> = {
  number: 'a number',
  string: 'a string',
  boolean: 'true or false',
  array: 'an array',
  object: 'an object',
}

interface Sentence {
  kind: ErrorKind
  message: string
  param: string
}

/** What is wrong, in a sentence for each field, five at most. */
function sentences(issues: readonly Issue[]): Sentence[] {
  const told = new Map<string, Sentence>()
  for (const issue of issues) {
    const sentence = explain(issue)
    // An integer beyond 2^53 breaks two rules, zod's own and then the field's, which says more.
    if (told.size < 5 || told.has(sentence.param)) told.set(sentence.param, sentence)
    else break
  }
  return [...told.values()]
}

function explain(issue: Issue): Sentence {
  const param = issue.path.map(String).join('.')
  const say = (kind: ErrorKind, sentence: string) => ({ kind, message: `'${param}' ${sentence}.`, param })
  const got = `but got ${describe(issue.input)}`
  // A rule of a field's own says itself what a field that is not there means.
  if (issue.code !== 'custom' && issue.input === undefined && issue.path.length > 0)
    return say('missing_required_parameter', 'is missing')
  switch (issue.code) {
    case 'invalid_type':
      return say(
        'invalid_type',
        `must be ${issue.expected !== 'boolean' && integerLike(issue) ? 'an integer' : (typeNames[issue.expected] ?? issue.expected)}, ${got}`,
      )
    case 'too_small':
      if (issue.origin === 'array') return say('empty_array', `must have at least ${issue.minimum} item, but got none`)
      if (issue.origin === 'string') return say('empty_string', 'must not be an empty string')
      return say(
        integerLike(issue) ? 'integer_below_min_value' : 'decimal_below_min_value',
        `must be at least ${issue.minimum}, ${got}`,
      )
    case 'too_big':
      if (issue.origin === 'array') {
        return say('array_above_max_length', `must have at most ${issue.maximum} items, ${got}`)
      }
      if (issue.origin === 'string') {
        const length = String(issue.input).length
        return say('string_above_max_length', `must have at most ${issue.maximum} characters, but got ${length}`)
      }
      return say(
        integerLike(issue) ? 'integer_above_max_value' : 'decimal_above_max_value',
        `must be at most ${issue.maximum}, ${got}`,
      )
    case 'custom': {
      const kind = issue.params?.kind as ErrorKind | undefined
      return say(kind ?? 'invalid_value', issue.message)
    }
    case 'invalid_value':
      return say(
        'invalid_value',
        `must be one of ${issue.values.map((value) => JSON.stringify(value)).join(', ')}, ${got}`,
      )
    default:
      return say('invalid_value', issue.message)
  }
}

const integerFields = new Set([
  ...[
    'n',
    'max_tokens',
    'max_completion_tokens',
    'max_output_tokens',
    'min_tokens',
    'top_k',
    'logprobs',
    'top_logprobs',
  ],
  ...['truncate_prompt_tokens', 'dimensions', 'top_n', 'best_of', 'prompt_logprobs'],
])

function integerLike(issue: Issue): boolean {
  return integerFields.has(String(issue.path.at(-1)))
}

/** A value as messages show it: short, whatever a client sends. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (Array.isArray(value)) return value.length === 0 ? 'an empty array' : `an array of ${value.length}`
  if (typeof value === 'object' && value !== null) return 'an object'
  return value === undefined ? 'nothing' : String(value)
}
