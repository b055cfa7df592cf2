// A request's body → a JSON value, never more of it in memory than the limit.

import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'

/** Bytes of a body, at most. */
export const maxBodyBytes = 8 * 1024 * 1024

const utf8 = new TextDecoder('utf-8', { fatal: true })

/** @throws ApiError when it is too large, not declared as JSON, or not JSON */
export async function readJson(c: Ctx): Promise<unknown> {
  const contentType = c.req.header('content-type') ?? ''
  if (!/^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i.test(contentType)) {
    const got = contentType === '' ? 'none' : JSON.stringify(contentType.slice(0, 60))
    throw new ApiError(
      'unsupported_media_type',
      `The content-type must be application/json, but got ${got}. With curl: -H 'content-type: application/json'.`,
    )
  }
  let text: string
  try {
    text = utf8.decode(await readBytes(c))
  } catch (error) {
    if (error instanceof ApiError) throw error
    throw notJson(error instanceof TypeError ? 'it is not UTF-8' : 'it ended early')
  }
  return parseJson(text)
}

/**
 * @param what the client sent, for the message
 * @throws ApiError
 */
export function parseJson(text: string, what = 'body'): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    // V8 quotes the text around the place; the place alone is enough, and the log stays free of prompts.
    const position = /at position (\d+)/.exec(String(error))?.[1]
    throw notJson(
      text.trim() === '' ? 'it is empty' : position === undefined ? 'it ends too early' : `see position ${position}`,
      what,
    )
  }
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
