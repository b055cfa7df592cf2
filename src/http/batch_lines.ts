// The lines of a batch's files: one request a line in, one answer a line out.

import { createReadStream, existsSync } from 'node:fs'
import { truncate } from 'node:fs/promises'
import type { ApiError, ErrorBody } from '../errors.js'
import { jsonText, maxBodyBytes, parseJson } from './body.js'

/** Lines of one batch, at most: OpenAI's number. */
const maxLines = 50_000
/** Errors that a batch reports before it runs, at most. */
const maxErrors = 100

/** What is wrong with a line, so that its batch cannot run. */
export interface LineError {
  code: string
  line: number
  message: string
  param: string | null
}

export interface BatchLine {
  custom_id: string
  body: unknown
}

/** A line of an output or error file. */
export interface AnswerLine {
  id: string
  custom_id: string
  response: { status_code: number; request_id: string; body: object | ErrorBody } | null
  error: { code: string; message: string } | null
}

interface Line {
  /** null: longer than any line that is good */
  bytes: Buffer | null
  /** bytes of the file up to here, the newline among them; null where the file ends without one */
  end: number | null
}

/**
 * A file's lines as they come from the disk: node:readline would end them at U+2028 too, which JSON may hold.
 * @param most bytes of a line that is kept in memory
 */
async function* rawLines(path: string, most = Number.POSITIVE_INFINITY): AsyncGenerator<Line> {
  let parts: Buffer[] = []
  let length = 0
  let before = 0
  const take = (part: Buffer) => {
    length += part.length
    if (length <= most) parts.push(part)
    else parts = []
  }
  const line = () => {
    const whole = length <= most ? Buffer.concat(parts) : null
    parts = []
    length = 0
    return whole
  }
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let start = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, start)) {
      take(chunk.subarray(start, end))
      yield { bytes: line(), end: before + end + 1 }
      start = end + 1
    }
    if (start < chunk.length) take(chunk.subarray(start))
    before += chunk.length
  }
  if (length > 0) yield { bytes: line(), end: null }
}

/** The requests of a file that checkLines has found good. */
export async function* readLines(path: string): AsyncGenerator<BatchLine> {
  for await (const { bytes } of rawLines(path)) if (bytes && !isBlank(bytes)) yield JSON.parse(jsonText(bytes))
}

function isBlank(line: Buffer): boolean {
  return line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)
}

/** Reads a whole input file. @returns how many requests it has, and what is wrong with which line */
export async function checkLines(path: string, endpoint: string): Promise<{ total: number; errors: LineError[] }> {
  const errors: LineError[] = []
  const ids = new Set<string>()
  let number = 0
  let total = 0
  for await (const { bytes } of rawLines(path, maxBodyBytes)) {
    number++
    if (bytes && isBlank(bytes)) continue
    total++
    const wrong = total > maxLines ? tooMany : checkLine(bytes, endpoint, ids)
    if (wrong === null) continue
    errors.push({ ...wrong, line: number })
    if (errors.length === maxErrors || total > maxLines) break
  }
  if (number === 0 || (total === 0 && errors.length === 0)) {
    errors.push({ code: 'empty_file', message: 'The file has no requests.', param: 'input_file_id', line: 1 })
  }
  return { total, errors }
}

type Wrong = Omit<LineError, 'line'> | null

const tooMany: Wrong = { code: 'too_many_requests', message: `A batch has at most ${maxLines} requests.`, param: null }

function checkLine(bytes: Buffer | null, endpoint: string, ids: Set<string>): Wrong {
  const noLine = (message: string): Wrong => ({ code: 'invalid_json_line', message, param: null })
  if (bytes === null) return noLine(`A line must be at most ${maxBodyBytes} bytes.`)
  let line: unknown
  try {
    line = parseJson(jsonText(bytes, 'line'), 'line')
  } catch (error) {
    return noLine((error as ApiError).message)
  }
  if (typeof line !== 'object' || line === null || Array.isArray(line)) return noLine('This line is no JSON object.')
  const wrong = (param: string, message: string) => ({
    code: 'invalid_request',
    message: `'${param}' ${message}.`,
    param,
  })
  const { custom_id, method, url, body } = line as Record<string, unknown>
  if (typeof custom_id !== 'string' || custom_id === '') return wrong('custom_id', 'must be a string that is not empty')
  if (custom_id.length > 512) return wrong('custom_id', 'must have at most 512 characters')
  if (ids.has(custom_id))
    return { code: 'duplicate_custom_id', message: 'Another line has this custom_id.', param: 'custom_id' }
  ids.add(custom_id)
  if (method !== 'POST') return wrong('method', 'must be "POST"')
  if (url !== endpoint) return wrong('url', `must be "${endpoint}", the batch's endpoint`)
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return wrong('body', 'must be an object')
  if ((body as { stream?: unknown }).stream === true)
    return wrong('body.stream', 'must not be true: nobody reads the stream')
  return null
}

/** The custom ids that a file of answers has. A last line that was cut off in the middle is cut away. */
export async function answeredIds(path: string): Promise<string[]> {
  const ids: string[] = []
  if (!existsSync(path)) return ids
  let whole = 0
  for await (const { bytes, end } of rawLines(path)) {
    if (end === null) await truncate(path, whole)
    else if (bytes !== null) ids.push((JSON.parse(bytes.toString()) as AnswerLine).custom_id)
    whole = end ?? whole
  }
  return ids
}
