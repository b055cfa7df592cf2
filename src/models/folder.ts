// Reading a model folder's files: every way in which one can be absent or not what its name says becomes a ModelError.

import { type FileHandle, open, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import { Fields } from './fields.js'
import { describe, ModelError } from './model-error.js'

const LFS_POINTER = 'version https://git-lfs'

/** Checks that the folder is there. */
export async function checkFolder(folder: string): Promise<void> {
  const found = await stat(folder).catch(systemError)
  if (!('code' in found)) {
    if (found.isDirectory()) return
    throw new ModelError(`${folder}: expected a model folder with config.json inside, found a file`)
  }
  if (found.code !== 'ENOENT')
    throw new ModelError(`${folder}: expected a model folder, found one that cannot be read (${found.code})`)
  throw new ModelError(`${folder}: expected a model folder, or org/name of a hub, found nothing there`)
}

/** The bytes of a small file, or null when there is none. Git LFS pointer files are refused. */
export async function readBytes(file: string): Promise<Buffer | null> {
  const handle = await openFile(file)
  if (handle === null) return null
  try {
    const bytes = await handle.readFile()
    refuseLfsPointer(file, bytes)
    return bytes
  } finally {
    await handle.close()
  }
}

/** The text of a UTF-8 file, or null when there is none. */
export async function readText(file: string): Promise<string | null> {
  const bytes = await readBytes(file)
  return bytes === null ? null : decodeUtf8(file, bytes)
}

/** The JSON object in a file, or null when there is none. */
export async function readJson(file: string): Promise<Fields | null> {
  const text = await readText(file)
  if (text === null) return null
  return new Fields(file, parseObject(file, text))
}

/** The JSON object in a file that must be there. */
export async function requireJson(file: string, purpose: string): Promise<Fields> {
  const fields = await readJson(file)
  if (fields === null) throw new ModelError(`${file}: expected ${purpose}, found no such file`)
  return fields
}

/** Parses text that must be one JSON object. */
export function parseObject(file: string, text: string): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new ModelError(
      `${file}: expected a JSON object, found text that is not JSON (${oneLine((error as Error).message)})`,
    )
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ModelError(`${file}: expected a JSON object, found ${describe(value)}`)
  }
  return value as Record<string, unknown>
}

/** Opens a file for reading, or null when there is none. */
export async function openFile(file: string): Promise<FileHandle | null> {
  const handle = await open(file, 'r').catch(systemError)
  if (!('code' in handle)) {
    if ((await handle.stat()).isFile()) return handle
    await handle.close()
    throw new ModelError(`${file}: expected a file, found a folder`)
  }
  if (handle.code === 'ENOENT') return null
  throw new ModelError(`${file}: expected a readable file, found one that cannot be opened (${handle.code})`)
}

/** Strict UTF-8: a byte that is none is an error instead of a silent U+FFFD. */
export function decodeUtf8(file: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw new ModelError(`${file}: expected UTF-8 text, found bytes that are none`)
  }
}

/** Repositories cloned without Git LFS hold a few lines of text where the large files should be. */
export function refuseLfsPointer(file: string, start: Uint8Array): void {
  if (Buffer.from(start.subarray(0, LFS_POINTER.length)).toString('latin1') !== LFS_POINTER) return
  throw new ModelError(
    `${file}: expected the file itself, found a Git LFS pointer to it; run "git lfs pull" for ${basename(file)}`,
  )
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ')
}

function systemError(error: unknown): { code: string } {
  return { code: (error as NodeJS.ErrnoException).code ?? String(error) }
}
