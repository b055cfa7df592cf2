// The lines of a batch's files: one request a line in, one answer a line out.

import { createReadStream, readFileSync, statSync, truncateSync } from 'node:fs'
import { createInterface } from 'node:readline'
import type { ErrorBody } from '../errors.js'

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

async function* rawLines(path: string): AsyncGenerator<string> {
  const lines = createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })
  for await (const line of lines) yield line
}

/** The requests of a file that checkLines has found good. */
export async function* readLines(path: string): AsyncGenerator<BatchLine> {
  for await (const line of rawLines(path)) if (line.trim() !== '') yield JSON.parse(line)
}

/** Reads a whole input file. @returns how many requests it has, and what is wrong with which line */
export async function checkLines(path: string, endpoint: string): Promise<{ total: number; errors: LineError[] }> {
  const errors: LineError[] = []
  const ids = new Set<string>()
  let number = 0
  let total = 0
  for await (const line of rawLines(path)) {
    number++
    if (line.trim() === '') continue
    total++
    const wrong = total > maxLines ? tooMany : checkLine(line, endpoint, ids)
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

function checkLine(text: string, endpoint: string, ids: Set<string>): Wrong {
  let line: Record<string, unknown>
  try {
    line = JSON.parse(text)
  } catch {
    return { code: 'invalid_json_line', message: 'This line is not valid JSON.', param: null }
  }
  if (typeof line !== 'object' || line === null || Array.isArray(line)) {
    return { code: 'invalid_json_line', message: 'This line is no JSON object.', param: null }
  }
  const wrong = (param: string, message: string) => ({
    code: 'invalid_request',
    message: `'${param}' ${message}.`,
    param,
  })
  const { custom_id, method, url, body } = line
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
export function answeredIds(path: string): string[] {
  if (!statSync(path, { throwIfNoEntry: false })) return []
  const content = readFileSync(path)
  const end = content.lastIndexOf(10) + 1
  if (end < content.length) truncateSync(path, end)
  return content
    .subarray(0, end)
    .toString()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as AnswerLine).custom_id)
}
