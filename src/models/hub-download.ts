// One file of a hub → one blob of the cache: continued where an earlier attempt ended, and checked before it gets its name.

import { createHash, type Hash } from 'node:crypto'
import { constants, type FileHandle, open, rename, rm, stat, statfs } from 'node:fs/promises'
import { basename, dirname } from 'node:path'
import { exists } from './hub-cache.js'
import type { HubClient, RemoteFile } from './hub-client.js'
import { HubError } from './hub-error.js'
import { bytesText, type HubProgress } from './hub-progress.js'

/** A connection that brought at least this much was worth it: the count of failures begins anew. */
const worthwhileBytes = 1 << 20

export interface Download {
  client: HubClient
  repo: string
  commit: string
  file: RemoteFile
  /** where the blob goes */
  blob: string
  progress: HubProgress
  signal: AbortSignal
}

/**
 * Downloads a blob that is not there yet. Its lock must be held.
 * @throws HubError; what has come so far stays in `<blob>.incomplete` and is continued from
 */
export async function downloadBlob(download: Download): Promise<void> {
  const { blob, file, repo } = download
  if (await exists(blob)) {
    download.progress.had(file.size)
    return
  }
  for (let attempt = 1; ; attempt++) {
    const found = await fill(download)
    if (found === file.hash) return
    // Bytes of an earlier attempt may be at fault, or of a proxy; once from the first byte, then it is the hub's fault.
    await rm(incomplete(blob), { force: true })
    download.progress.had(-file.size)
    if (attempt === 2) {
      const kind = file.hash.length === 64 ? 'sha256' : 'git sha1'
      throw new HubError(
        `${repo}/${file.name}: expected ${kind} ${file.hash}, found ${found} in two downloads; nothing of it is kept`,
      )
    }
    download.progress.note(
      `${file.name}: expected hash ${file.hash.slice(0, 12)}…, found ${found.slice(0, 12)}…; downloading it anew`,
    )
  }
}

/** Bytes of a blob that are here already. */
export async function bytesHere(blob: string, size: number): Promise<number> {
  if (await exists(blob)) return size
  const part = await stat(incomplete(blob)).catch(() => null)
  return Math.min(part?.size ?? 0, size)
}

/** @throws HubError unless the folder's disk has room for so many bytes more */
export async function checkRoom(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder)
  if (bytes <= bavail * bsize) return
  throw new HubError(
    `${folder}: expected room for ${bytesText(bytes)} more, found ${bytesText(bavail * bsize)} free; make room, or set HF_HUB_CACHE to a folder on another disk`,
  )
}

function incomplete(blob: string): string {
  return `${blob}.incomplete`
}

/** Makes the file whole and gives it its name if the hash is right. @returns the hash */
async function fill(download: Download): Promise<string> {
  const { blob, file, progress } = download
  const path = incomplete(blob)
  let handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644)
  try {
    let have = (await handle.stat()).size
    if (have > file.size) {
      await handle.close()
      await rm(path, { force: true })
      handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644)
      have = 0
    }
    const hash = hashOf(file)
    await readInto(hash, handle, have, download.signal)
    progress.had(have)
    await receive(download, handle, hash, have)
    const found = hash.digest('hex')
    if (found !== file.hash) return found
    await handle.sync()
    // On a disk whose locks do nothing, another process may have replaced the file.
    const [ours, named] = [await handle.stat(), await stat(path)]
    if (ours.ino !== named.ino || named.size !== file.size) return 'another file in its place'
    await rename(path, blob)
    return found
  } finally {
    await handle.close()
  }
}

/** sha256, or git's sha1 of `blob <size>\0` and the content. */
function hashOf({ hash, size }: RemoteFile): Hash {
  return hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`)
}

async function readInto(hash: Hash, handle: FileHandle, bytes: number, signal: AbortSignal): Promise<void> {
  const buffer = Buffer.allocUnsafe(1 << 20)
  for (let at = 0; at < bytes; ) {
    const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, bytes - at), at)
    if (bytesRead === 0) throw new HubError('the partial download became shorter while it was read')
    hash.update(buffer.subarray(0, bytesRead))
    at += bytesRead
    signal.throwIfAborted()
  }
}

/** Receives the bytes from `at` on, over as many connections as it takes. */
async function receive(download: Download, handle: FileHandle, hash: Hash, at: number): Promise<void> {
  const { client, repo, commit, file, progress, signal } = download
  let failures = 0
  while (at < file.size) {
    const start = at
    try {
      const { first, chunks } = await client.open(repo, commit, file, at, signal)
      let skip = at - first // a server that knows no ranges starts at the beginning
      for await (const chunk of chunks) {
        const fresh = chunk.subarray(Math.min(skip, chunk.length))
        skip -= chunk.length - fresh.length
        if (at + fresh.length > file.size)
          throw new HubError(`${repo}/${file.name}: expected ${file.size} bytes, as announced, found more`)
        await write(handle, fresh, at, download)
        hash.update(fresh)
        at += fresh.length
        progress.add(fresh.length)
      }
      // A body that ends early without a word is a cut connection.
      if (at < file.size) throw client.cut()
    } catch (error) {
      failures = at - start >= worthwhileBytes ? 1 : failures + 1
      await client.failed(error, failures, signal)
    }
  }
}

async function write(handle: FileHandle, bytes: Uint8Array, at: number, download: Download): Promise<void> {
  try {
    for (let done = 0; done < bytes.length; )
      done += (await handle.write(bytes, done, bytes.length - done, at + done)).bytesWritten
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (!['ENOSPC', 'EDQUOT', 'EFBIG'].includes(code)) throw error
    const { blob, file, repo } = download
    throw new HubError(
      `${dirname(blob)}: the disk is full (${code}) at ${bytesText(at)} of ${basename(file.name)}; ${repo} needs ${bytesText(download.progress.left)} more. What has come is kept: make room and start again, or set HF_HUB_CACHE to a folder on another disk`,
    )
  }
}
