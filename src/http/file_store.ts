// Files that clients leave here: one folder, so many bytes and no more. Beside each content lies a .json that describes it; content
// without one is what an upload left that never ended, and goes at the next start.

import { randomUUID } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { appendFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ApiError } from '../errors.js'

export type FilePurpose = 'batch' | 'batch_output'

/** OpenAI's file object. */
export interface StoredFile {
  id: string
  object: 'file'
  bytes: number
  created_at: number
  filename: string
  purpose: FilePurpose
  status: 'processed'
}

export class FileStore {
  readonly #folder: string
  readonly #limit: number
  /** oldest first */
  readonly #files = new Map<string, StoredFile>()
  /** bytes of contents that have no description yet, those on their way to the disk among them */
  readonly #open = new Map<string, number>()
  /** the last write of each of these, which follow one another */
  readonly #writes = new Map<string, Promise<void>>()

  /**
   * @param folder is made if it is not there
   * @param limit bytes of all contents together
   * @throws Error when the folder cannot be used
   */
  constructor(folder: string, limit: number) {
    this.#folder = folder
    this.#limit = limit
    mkdirSync(folder, { recursive: true })
    const names = readdirSync(folder)
    const found = names
      .filter((name) => /^file-[0-9a-f]+\.json$/.test(name))
      .map((name): StoredFile => JSON.parse(readFileSync(join(folder, name), 'utf8')))
      .sort((a, b) => a.created_at - b.created_at)
    for (const file of found) this.#files.set(file.id, file)
  }

  /** Begins a file. Until it is kept, it has content and no description. */
  begin(): string {
    const id = `file-${randomUUID().replaceAll('-', '')}`
    this.resume(id)
    return id
  }

  /** Goes on with a file that was begun in an earlier life of the server. @returns bytes that it has already */
  resume(id: string): number {
    const bytes = statSync(this.path(id), { throwIfNoEntry: false })?.size ?? 0
    this.#open.set(id, bytes)
    return bytes
  }

  /**
   * Writes behind what was appended before. Ends when the chunk is with the operating system.
   * @throws ApiError when there is no room; the content stays as it was
   */
  async append(id: string, chunk: Uint8Array | string): Promise<void> {
    const bytes = typeof chunk === 'string' ? Buffer.byteLength(chunk) : chunk.length
    this.checkRoom(bytes)
    this.#open.set(id, (this.#open.get(id) ?? 0) + bytes)
    const write = (this.#writes.get(id) ?? Promise.resolve()).then(() => {
      // A file that was dropped stays away.
      if (this.#open.has(id)) return appendFile(this.path(id), chunk)
    })
    this.#writes.set(id, write)
    await write
  }

  /** @throws ApiError unless so many more bytes fit */
  checkRoom(bytes: number): void {
    if (this.usedBytes + bytes <= this.#limit) return
    throw new ApiError(
      'files_full',
      `The files of this server may have ${this.#limit} bytes together, and ${this.usedBytes} are taken. Delete some.`,
    )
  }

  get usedBytes(): number {
    let sum = 0
    for (const { bytes } of this.#files.values()) sum += bytes
    for (const bytes of this.#open.values()) sum += bytes
    return sum
  }

  /** Describes a file that was begun, and whose writes have ended: from now on clients see it. */
  keep(id: string, filename: string, purpose: FilePurpose, created_at: number): StoredFile {
    const bytes = this.#open.get(id) ?? 0
    if (bytes === 0) writeFileSync(this.path(id), '')
    const file: StoredFile = { id, object: 'file', bytes, created_at, filename, purpose, status: 'processed' }
    writeJson(join(this.#folder, `${id}.json`), file)
    this.#open.delete(id)
    this.#writes.delete(id)
    this.#files.set(id, file)
    return file
  }

  /** Forgets a file that was begun. */
  drop(id: string): void {
    this.#open.delete(id)
    const remove = () => rmSync(this.path(id), { force: true })
    const write = this.#writes.get(id)
    this.#writes.delete(id)
    if (write) write.then(remove, remove)
    else remove()
  }

  /** Content that nobody described and nobody goes on with. */
  sweep(): void {
    for (const name of readdirSync(this.#folder)) {
      if (/^file-[0-9a-f]+$/.test(name) && !this.#files.has(name) && !this.#open.has(name)) this.drop(name)
    }
  }

  list(): StoredFile[] {
    return [...this.#files.values()]
  }

  /** @throws ApiError when there is none */
  get(id: string, param: string | null = null): StoredFile {
    const file = this.#files.get(id)
    if (file) return file
    throw new ApiError('file_not_found', `There is no file with the id '${id.slice(0, 100)}'.`, param)
  }

  delete(id: string): void {
    this.get(id)
    rmSync(join(this.#folder, `${id}.json`), { force: true })
    rmSync(this.path(id), { force: true })
    this.#files.delete(id)
  }

  /** Where the content lies. @param id one that this store made */
  path(id: string): string {
    return join(this.#folder, id)
  }

  /** The folder, for those who keep more in it. */
  get folder(): string {
    return this.#folder
  }
}

/** Writes a file so that there is the old one or the new one, and never a half. */
export function writeJson(path: string, value: object): void {
  writeFileSync(`${path}.tmp`, JSON.stringify(value))
  renameSync(`${path}.tmp`, path)
}
