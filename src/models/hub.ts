// A model of a hub → a folder of the cache with all that it needs.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exists, HubCache } from './hub-cache.js'
import { HubClient, type Patience, type RemoteFile } from './hub-client.js'
import { bytesHere, checkRoom, downloadBlob } from './hub-download.js'
import { HubError, HubUnavailable } from './hub-error.js'
import { shardsOf, smallFiles, weightsOf } from './hub-files.js'
import type { HubId } from './hub-id.js'
import { withLock } from './hub-lock.js'
import { bytesText, type HubProgress } from './hub-progress.js'
import type { HubSettings } from './hub-settings.js'

/** Connections at once. */
const connections = 4

/**
 * Downloads what is missing of a model.
 * @param checkSmall called with the folder when all but the weights are there, so that a model that cannot be served costs no more
 * @returns the folder of the snapshot
 * @throws HubError with what to do; what has come is kept, and the next call continues
 */
export async function pullModel(
  id: HubId,
  settings: HubSettings,
  progress: HubProgress,
  checkSmall: (folder: string) => Promise<unknown> = async () => {},
  patience?: Patience,
): Promise<string> {
  const cache = new HubCache(settings.cacheFolder, id.repo)
  if (settings.offline) return fromCache(cache, id, settings, 'HF_HUB_OFFLINE is set')
  const client = openClient(settings, progress, patience)
  const stop = new AbortController()
  let listing: { commit: string; names: string[] }
  try {
    listing = await client.list(id, stop.signal)
  } catch (error) {
    if (!(error instanceof HubUnavailable)) throw error
    const folder = await fromCache(cache, id, settings, error.message)
    progress.note(`${error.message}; using the copy in the cache, which may not be the newest`)
    return folder
  }

  const { commit, names } = listing
  const folder = cache.snapshot(commit)
  const weights = weightsOf(id.text, names)
  await prepare(cache, id, commit, names)
  const get = (wanted: string[], what: string | null) =>
    fetchFiles({ client, cache, repo: id.repo, commit, progress, stop }, wanted, what)
  await get(weights.isIndex ? [...smallFiles(names), weights.name] : smallFiles(names), null)
  await checkSmall(folder)
  const index = join(folder, weights.name)
  const shards = weights.isIndex ? shardsOf(index, await readFile(index, 'utf8')) : [weights.name]
  const unlisted = shards.find((shard) => !names.includes(shard))
  if (unlisted !== undefined)
    throw new HubError(`${id.text}: ${weights.name} names ${unlisted}, which is not among the model's files`)
  await get(shards, 'weights')
  await cache.writeRef(id.revision, commit)
  progress.end()
  return folder
}

/**
 * The folder with a model's config.json: the cache's, where that file is there, else downloaded, and nothing else with it.
 * @throws HubError with what to do
 */
export async function pullConfig(
  id: HubId,
  settings: HubSettings,
  progress: HubProgress,
  patience?: Patience,
): Promise<string> {
  const cache = new HubCache(settings.cacheFolder, id.repo)
  const found = await cache.find(id)
  if (found !== null && found.missing !== 'config.json') return found.folder
  if (settings.offline) return fromCache(cache, id, settings, 'HF_HUB_OFFLINE is set')
  const client = openClient(settings, progress, patience)
  const stop = new AbortController()
  const { commit, names } = await client.list(id, stop.signal)
  await prepare(cache, id, commit, names)
  await fetchFiles({ client, cache, repo: id.repo, commit, progress, stop }, ['config.json'], null)
  return cache.snapshot(commit)
}

function openClient(settings: HubSettings, progress: HubProgress, patience?: Patience): HubClient {
  const client = new HubClient(settings, patience)
  client.onRetry = (reason, waitMs) => progress.note(`${reason}; again in ${(waitMs / 1000).toFixed(1)} s`)
  return client
}

/** @throws HubError for a repository that is no model, and for a cache that cannot be written */
async function prepare(cache: HubCache, id: HubId, commit: string, names: string[]): Promise<void> {
  if (!names.includes('config.json'))
    throw new HubError(`${id.text}: expected a config.json among its files, found none`)
  await cache.makeFolders(commit).catch((error) => {
    throw new HubError(`${cache.folder}: cannot be written (${error.code}); set HF_HUB_CACHE to a folder that can`)
  })
}

interface Fetching {
  client: HubClient
  cache: HubCache
  repo: string
  commit: string
  progress: HubProgress
  stop: AbortController
}

/** Downloads those of the `wanted` files that the snapshot lacks. `what` they are is told to who waits; null: not worth a word. */
async function fetchFiles(fetching: Fetching, wanted: string[], what: string | null): Promise<void> {
  const { client, cache, repo, commit, progress, stop } = fetching
  const missing: string[] = []
  for (const name of wanted) if (!(await exists(join(cache.snapshot(commit), name)))) missing.push(name)
  const files: RemoteFile[] = []
  await each(missing, stop, async (name) => {
    files.push(await client.head(repo, commit, name, stop.signal))
  })
  let toCome = 0
  for (const file of files) {
    progress.expect(file.size)
    toCome += file.size - (await bytesHere(cache.blob(file.hash), file.size))
  }
  await checkRoom(cache.folder, toCome)
  if (what !== null && toCome > 0) progress.note(`${bytesText(toCome)} of ${what} to download into ${cache.folder}`)
  await each(files, stop, async (file) => {
    const waits = () => progress.note(`another process downloads ${file.name}; waiting for it`)
    const blob = cache.blob(file.hash)
    await withLock(cache.lock(file.hash), stop.signal, waits, async () => {
      await downloadBlob({ client, repo, commit, file, blob, progress, signal: stop.signal })
      await cache.link(commit, file.name, file.hash)
    })
  })
}

/** @param why the hub is not asked */
async function fromCache(cache: HubCache, id: HubId, settings: HubSettings, why: string): Promise<string> {
  const found = await cache.find(id)
  if (found?.missing === null) return found.folder
  const lacks =
    found === null
      ? `found nothing of it in ${settings.cacheFolder}`
      : `found it without ${found.missing} in ${found.folder}`
  throw new HubUnavailable(
    `${id.text}: expected the whole model in the cache because ${why}, ${lacks}; download it with \`parley pull ${id.text}\` where there is a network`,
  )
}

/** Runs `work` on all items, some at a time. The first error stops the others, and is thrown when they have stopped. */
async function each<T>(items: readonly T[], stop: AbortController, work: (item: T) => Promise<void>): Promise<void> {
  const queue = [...items]
  const one = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      stop.signal.throwIfAborted()
      await work(item).catch((error) => {
        stop.abort(error)
        throw error
      })
    }
  }
  await Promise.allSettled(Array.from({ length: Math.min(connections, items.length) }, one))
  stop.signal.throwIfAborted()
}
