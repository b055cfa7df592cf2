// A request's body → a JSON value, never more of it in memory than the limit.

import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'

/** Bytes of a body, at most. */
export const maxBodyBytes = 8 * 1024 * 1024

/** Arrays and objects inside each other, at most. */
const maxDepth = 128
/** Fields of one object, at most. */
const maxNames = 2048

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** @throws ApiError when it is too large, not declared as JSON, compressed, or not JSON */
export async function readJson(c: Ctx): Promise<unknown> {
  const contentType = c.req.header('content-type') ?? ''
  if (!/^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i.test(contentType)) {
    const got = contentType === '' ? 'none' : JSON.stringify(contentType.slice(0, 60))
    throw new ApiError(
      'unsupported_media_type',
      `The content-type must be application/json, but got ${got}. With curl: -H 'content-type: application/json'.`,
    )
  }
  const encoding = c.req.header('content-encoding') ?? 'identity'
  if (encoding.toLowerCase() !== 'identity') {
    throw new ApiError(
      'unsupported_media_type',
      `The body must not be compressed, but its content-encoding is ${JSON.stringify(encoding.slice(0, 60))}.`,
    )
  }
  let bytes: ArrayBuffer | Uint8Array
  try {
    bytes = await readBytes(c)
  } catch (error) {
    if (error instanceof ApiError) throw error
    throw notJson('it ended early')
  }
  return parseJson(jsonText(bytes))
}

/**
 * The text of JSON's bytes, without the byte order mark that some editors write before it.
 * @param what the client sent, for the message
 * @throws ApiError
 */
export function jsonText(bytes: ArrayBuffer | Uint8Array, what = 'body'): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw notJson('it is not UTF-8', what)
  }
}

/**
 * @param what the client sent, for the message
 * @throws ApiError
 */
export function parseJson(text: string, what = 'body'): unknown {
  checkForm(text, what)
  try {
    return JSON.parse(text)
  } catch (error) {
    throw notJson(text.trim() === '' ? 'it is empty' : reasonOf(error as SyntaxError), what)
  }
}

/** V8's reason without the text that it quotes: a log stays free of prompts. */
function reasonOf({ message }: SyntaxError): string {
  const [, rule, position] = /^(.+?)(?: in JSON)? at position (\d+)/.exec(message) ?? []
  if (rule !== undefined) return `${rule.charAt(0).toLowerCase()}${rule.slice(1)} at position ${position}`
  // Such as Python's True, which has no position in V8's words.
  const token = /^Unexpected token '(.)'/u.exec(message)?.[1]
  return token === undefined ? 'it ends too early' : `unexpected ${token} outside of a string`
}

/**
 * Refuses what no request needs and JSON.parse would hold everybody up with: deep nesting (1 s for 4 MB of brackets) and objects of very many
 * names (as long for 200,000). Strings are jumped over, so that a long prompt costs next to nothing.
 * @throws ApiError
 */
function checkForm(text: string, what: string): void {
  const names = [0] // of each object that is open
  const marks = /["[\]{}:]/g
  while (marks.test(text)) {
    const at = marks.lastIndex - 1
    switch (text[at]) {
      case '"':
        marks.lastIndex = endOfString(text, at) + 1
        break
      case '[':
      case '{':
        if (names.push(0) > maxDepth + 1) throw notJson(`it is nested more than ${maxDepth} deep`, what)
        break
      case ']':
      case '}':
        if (names.length > 1) names.pop()
        break
      case ':': {
        const count = (names.at(-1) ?? 0) + 1
        names[names.length - 1] = count
        if (count <= maxNames) break
        throw new ApiError(
          'array_above_max_length',
          `The ${what} must not have an object of more than ${maxNames} fields.`,
        )
      }
    }
  }
}

/** The place of the quotation mark that ends the string which begins at `start`; the text's end where none does. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let backslashes = 0
    while (text.charCodeAt(end - 1 - backslashes) === 0x5c) backslashes++
    if (backslashes % 2 === 0) return end
  }
  return text.length
}

function notJson(reason: string, what = 'body'): ApiError {
  return new ApiError('invalid_json', `The ${what} could not be parsed as JSON: ${reason}.`)
}

async function readBytes(c: Ctx): Promise<ArrayBuffer | Uint8Array> {
  const length = c.req.header('content-length')
  if (length !== undefined) {
    if (Number(length) > maxBodyBytes) throw tooLarge()
    return c.req.raw.arrayBuffer() // node holds the client to the length
  }
  const chunks: Uint8Array[] = []
  let size = 0
  const reader = c.req.raw.body?.getReader()
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined }
    if (done || value === undefined) return Buffer.concat(chunks)
    size += value.byteLength
    if (size > maxBodyBytes) {
      reader?.cancel().catch(() => {})
      throw tooLarge()
    }
    chunks.push(value)
  }
}

function tooLarge(): ApiError {
  return new ApiError('request_too_large', `The body must be at most ${maxBodyBytes} bytes.`)
}
