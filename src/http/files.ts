// /v1/files: what batches read and write. An upload goes to the disk as it comes.

import { createReadStream } from 'node:fs'
import { Readable } from 'node:stream'
import { Busboy, type BusboyInstance } from '@fastify/busboy'
import { ApiError } from '../errors.js'
import { now } from './answer.js'
import { setAnswerHeaders } from './answer_headers.js'
import type { Ctx, ServerState } from './context.js'
import type { FileStore, StoredFile } from './file_store.js'
import { page } from './page.js'
import { json } from './respond.js'

/** @throws ApiError when the server keeps no files */
export function needFiles({ files }: ServerState): FileStore {
  if (files) return files
  throw new ApiError('files_disabled', 'This server keeps no files. Its option --files-dir names a folder for them.')
}

/** POST /v1/files */
export async function uploadFile(c: Ctx): Promise<Response> {
  const files = needFiles(c.get('state'))
  const contentType = c.req.header('content-type') ?? ''
  if (!/^multipart\/form-data\s*;/i.test(contentType)) {
    throw new ApiError(
      'unsupported_media_type',
      'A file is sent as multipart/form-data, with the fields purpose and file.',
    )
  }
  files.checkRoom(0)
  const id = files.begin()
  try {
    const { filename, purpose } = await receive(c, files, id, contentType)
    if (purpose === null) throw new ApiError('missing_required_parameter', "'purpose' is missing.", 'purpose')
    if (purpose !== 'batch') {
      throw new ApiError(
        'unsupported_value',
        `'purpose' must be "batch", the only one that this server has.`,
        'purpose',
      )
    }
    if (filename === null) throw new ApiError('missing_required_parameter', "'file' is missing.", 'file')
    return json(c, files.keep(id, filename, 'batch', now()))
  } catch (error) {
    files.drop(id)
    throw error
  }
}

/** Writes the form's file, and gathers what the form says about it. */
function receive(
  c: Ctx,
  files: FileStore,
  id: string,
  contentType: string,
): Promise<{ filename: string | null; purpose: string | null }> {
  const said: { filename: string | null; purpose: string | null } = { filename: null, purpose: null }
  let written = Promise.resolve()
  return new Promise((resolve, reject) => {
    const fail = (error: unknown) => {
      if (form !== null) source.unpipe(form)
      source.resume() // what still comes is read and forgotten
      reject(
        error instanceof ApiError
          ? error
          : new ApiError('invalid_value', 'The body could not be read as multipart/form-data.', null, error),
      )
    }
    const form = makeForm(contentType, fail)
    const source = Readable.fromWeb(c.req.raw.body as Parameters<typeof Readable.fromWeb>[0])
    if (form === null) return
    form.on('field', (name, value) => {
      if (name === 'purpose') said.purpose = value
      if (/^expires_after\b/.test(name)) {
        const message = "'expires_after' is not supported by this server yet. Leave it out."
        fail(new ApiError('unsupported_parameter', message, 'expires_after'))
      }
    })
    form.on('file', (name, stream, filename) => {
      if (name !== 'file' || said.filename !== null) {
        stream.resume()
        return
      }
      said.filename = (filename || 'file').slice(0, 255)
      written = write(files, id, stream)
      written.catch(fail)
    })
    form.on('error', fail)
    form.on('finish', () => written.then(() => resolve(said), fail))
    source.on('error', fail)
    source.pipe(form)
  })
}

/** The disk's pace is the upload's. */
async function write(files: FileStore, id: string, content: AsyncIterable<Buffer>): Promise<void> {
  for await (const chunk of content) await files.append(id, chunk)
}

function makeForm(contentType: string, fail: (error: unknown) => void): BusboyInstance | null {
  try {
    return new Busboy({
      headers: { 'content-type': contentType },
      limits: { fieldSize: 1024, fields: 20, files: 1, parts: 25, headerPairs: 50 },
    })
  } catch (error) {
    queueMicrotask(() => fail(error)) // no boundary in the header
    return null
  }
}

/** Files of one page, at most and unless told: OpenAI's number. */
const maxListed = 10_000

/** GET /v1/files */
export function listFiles(c: Ctx): Response {
  const purpose = c.req.query('purpose')
  const files = needFiles(c.get('state')).list()
  const wanted = purpose === undefined ? files : files.filter((file) => file.purpose === purpose)
  return json(c, page(c, wanted, maxListed, maxListed))
}

function find(c: Ctx): StoredFile {
  return needFiles(c.get('state')).get(c.req.param('id') ?? '')
}

/** GET /v1/files/{id} */
export function retrieveFile(c: Ctx): Response {
  return json(c, find(c))
}

/** DELETE /v1/files/{id} */
export function deleteFile(c: Ctx): Response {
  const { id } = find(c)
  const user = c.get('state').batches?.userOf(id)
  if (user !== undefined) {
    throw new ApiError('file_in_use', `The batch ${user} still reads or writes this file. Cancel it first.`)
  }
  needFiles(c.get('state')).delete(id)
  return json(c, { id, object: 'file', deleted: true })
}

/** GET /v1/files/{id}/content */
export function fileContent(c: Ctx): Response {
  const { id, bytes } = find(c)
  setAnswerHeaders(c)
  const content = Readable.toWeb(createReadStream(needFiles(c.get('state')).path(id)))
  return c.body(content as ReadableStream, 200, {
    'content-type': 'application/octet-stream',
    'content-length': String(bytes),
    // Never a page of this server, whatever is in it.
    'content-disposition': 'attachment',
    'x-content-type-options': 'nosniff',
  })
}
