// One download of a blob at a time, over all processes that share the cache.

import { open } from 'node:fs/promises'
import { tryLockFile } from '../engine/addon.js'

const lookAgainMs = 200

/**
 * Runs `work` while this process holds the lock of `file`.
 * @param onWait called once when another process has it
 */
export async function withLock<T>(
  file: string,
  signal: AbortSignal,
  onWait: () => void,
  work: () => Promise<T>,
): Promise<T> {
  const handle = await open(file, 'a', 0o664)
  try {
    for (let waits = 0; !tryLock(handle.fd); waits++) {
      if (waits === 0) onWait()
      await new Promise((resolve) => setTimeout(resolve, lookAgainMs))
      signal.throwIfAborted()
    }
    return await work()
  } finally {
    // Gives the lock back. The file stays: whoever waits for it has it open.
    await handle.close()
  }
}

/** Where files cannot be locked, two downloads of one blob are a waste and no fault: both write the same bytes to the same places. */
function tryLock(fd: number): boolean {
  try {
    return tryLockFile(fd)
  } catch {
    return true
  }
}
