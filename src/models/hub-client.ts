// The few requests of a Hugging Face hub that a download needs. `@huggingface/hub` (2.17) was looked at first: its downloads cannot
// resume, check no hash, take no lock, do not retry, and read no HF_TOKEN.

import { connectionCut, HubError, HubUnavailable, networkReason, Transient } from './hub-error.js'
import type { HubId } from './hub-id.js'
import type { HubSettings } from './hub-settings.js'
import { describe } from './model-error.js'

/** How patient a client is. */
export interface Patience {
  /** pause before the first retry; it doubles with each, up to 30 s */
  retryMs: number
  /** failures in a row that are retried */
  retries: number
  /** a hub that is silent for this long counts as gone */
  silenceMs: number
}

export const patience: Patience = { retryMs: 1000, retries: 5, silenceMs: 30_000 }

/** A hub that wants more time than this before the next attempt is not waited for. */
const longestWaitMs = 120_000

/** One file of a repository at a commit. */
export interface RemoteFile {
  name: string
  /** sha256 of a large file (Git LFS), git's sha1 of a small one; also the name of its blob in the cache */
  hash: string
  size: number
}

export class HubClient {
  readonly #settings: HubSettings
  readonly #patience: Patience
  /** told of each failure that is retried */
  onRetry: (reason: string, waitMs: number) => void = () => {}

  constructor(settings: HubSettings, { ...patient }: Patience = patience) {
    this.#settings = settings
    this.#patience = patient
  }

  /** The commit that a revision stands for, and the names of its files. A hub that cannot be reached is not tried twice. */
  async list({ repo, revision }: HubId, signal: AbortSignal): Promise<{ commit: string; names: string[] }> {
    const url = `${this.#settings.endpoint}/api/models/${repo}/revision/${encodeURIComponent(revision)}`
    const response = await this.retrying(
      async () => {
        const found = await this.#follow('GET', url, {}, signal, () => false)
        this.#check(found, `${repo}@${revision}`)
        return found.json().catch((error) => {
          if (error instanceof SyntaxError) throw this.#strange(url, 'JSON', 'something else')
          throw new Transient(networkReason(error))
        })
      },
      signal,
      'list',
    )
    const { sha, siblings } = (response ?? {}) as { sha?: unknown; siblings?: unknown }
    if (typeof sha !== 'string' || !/^[0-9a-f]{40}$/.test(sha)) throw this.#strange(url, 'a commit in `sha`', sha)
    const names = Array.isArray(siblings) ? siblings.map((file) => (file as { rfilename?: unknown })?.rfilename) : []
    if (names.length === 0 || !names.every((name) => typeof name === 'string'))
      throw this.#strange(url, 'names of files in `siblings`', siblings)
    return { commit: sha, names }
  }

  /** Size and hash of a file. */
  async head(repo: string, commit: string, name: string, signal: AbortSignal): Promise<RemoteFile> {
    const url = this.#fileUrl(repo, commit, name)
    const { headers } = await this.retrying(async () => {
      // A large file's facts stand in the redirect to where it is stored, and only there.
      const found = await this.#follow('HEAD', url, {}, signal, (response) => response.headers.has('x-linked-etag'))
      if (found.status >= 400) this.#check(found, `${repo}/${name}`)
      return found
    }, signal)
    const etag = headers.get('x-linked-etag') ?? headers.get('etag')
    const hash = etag?.replace(/^W\//, '').replace(/^"(.*)"$/, '$1') ?? ''
    if (!/^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(hash))
      throw this.#strange(url, 'a sha1 or sha256 in x-linked-etag or etag', etag)
    const length = headers.get('x-linked-size') ?? headers.get('content-length')
    if (!/^\d{1,15}$/.test(length ?? '')) throw this.#strange(url, 'a size in x-linked-size or content-length', length)
    return { name, hash, size: Number(length) }
  }

  /**
   * The bytes of a file from one on, in one attempt.
   * @returns the first byte that comes, which is 0 where ranges are not known, and the stream
   * @throws Transient when it is worth to try again
   */
  async open(repo: string, commit: string, file: RemoteFile, from: number, signal: AbortSignal) {
    const url = this.#fileUrl(repo, commit, file.name)
    const headers: Record<string, string> = from > 0 ? { range: `bytes=${from}-` } : {}
    const response = await this.#follow('GET', url, headers, signal, () => false)
    this.#check(response, `${repo}/${file.name}`)
    const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '')
    if (response.status === 206 && range === null)
      throw this.#strange(url, 'a content-range', response.headers.get('content-range'))
    const first = response.status === 206 ? Number(range?.[1]) : 0
    const total = response.status === 206 ? range?.[2] : response.headers.get('content-length')
    if (first > from || (total !== null && Number(total) !== file.size)) {
      await response.body?.cancel().catch(() => {})
      throw this.#strange(
        url,
        `${file.size} bytes, as announced, from byte ${from} on`,
        `${total} from byte ${first} on`,
      )
    }
    return { first, chunks: this.#chunks(response, signal) }
  }

  /** @throws HubError after too many failures in a row. @param list a hub that cannot be reached ends it at once */
  async retrying<T>(attempt: () => Promise<T>, signal: AbortSignal, list?: 'list'): Promise<T> {
    for (let failures = 1; ; failures++) {
      try {
        return await attempt()
      } catch (error) {
        if (list && error instanceof Unreachable) throw this.#unavailable(error.message)
        await this.failed(error, failures, signal)
      }
    }
  }

  /** Waits before the next attempt. @throws the error if it is not transient, HubUnavailable after too many in a row */
  async failed(error: unknown, failures: number, signal: AbortSignal): Promise<void> {
    if (!(error instanceof Transient) || signal.aborted) throw error
    if (failures > this.#patience.retries) throw this.#unavailable(error.message, failures)
    const doubled = Math.min(this.#patience.retryMs * 2 ** (failures - 1), 30_000)
    // Many machines that failed at the same moment should not come back at the same moment.
    const waitMs = error.waitMs ?? Math.round(doubled * (0.75 + Math.random() / 2))
    if (waitMs > longestWaitMs)
      throw this.#unavailable(`${error.message}; it asks to wait ${Math.ceil(waitMs / 1000)} s, try again then`)
    this.onRetry(error.message, waitMs)
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, waitMs)
      function done() {
        clearTimeout(timer)
        signal.removeEventListener('abort', done)
        resolve()
      }
      signal.addEventListener('abort', done)
    })
    signal.throwIfAborted()
  }

  /** A body ended before the file did. */
  cut(): Transient {
    return new Transient(connectionCut)
  }

  #fileUrl(repo: string, commit: string, name: string): string {
    return `${this.#settings.endpoint}/${repo}/resolve/${commit}/${encodeURIComponent(name)}`
  }

  /** Follows redirects itself, because the token must not follow them to another origin. */
  async #follow(
    method: string,
    start: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    enough: (response: Response) => boolean,
  ): Promise<Response> {
    const { endpoint, token } = this.#settings
    let url = start
    for (let hops = 0; hops < 6; hops++) {
      const own = new URL(url).origin === new URL(endpoint).origin
      const response = await this.#fetch(url, {
        method,
        redirect: 'manual',
        // Compressed answers would have other lengths than the files.
        headers: {
          'user-agent': 'parley',
          'accept-encoding': 'identity',
          ...headers,
          ...(own && token !== null ? { authorization: `Bearer ${token}` } : {}),
        },
        signal,
      })
      const location = response.headers.get('location')
      if (![301, 302, 303, 307, 308].includes(response.status) || location === null || enough(response)) return response
      await response.body?.cancel().catch(() => {})
      if (!URL.canParse(location, url)) throw this.#strange(url, 'a redirect to a URL', location)
      const next = new URL(location, url)
      if (next.protocol !== 'https:' && !(next.protocol === 'http:' && url.startsWith('http:')))
        throw this.#strange(url, 'a redirect to https', next.protocol)
      url = next.href
    }
    throw this.#strange(start, 'a few redirects', 'more than 5')
  }

  async #fetch(url: string, init: RequestInit & { signal: AbortSignal }): Promise<Response> {
    const silence = new AbortController()
    const timer = setTimeout(() => silence.abort(new Transient('it does not answer')), this.#patience.silenceMs)
    try {
      return await fetch(url, { ...init, signal: AbortSignal.any([init.signal, silence.signal]) })
    } catch (error) {
      if (init.signal.aborted) throw error
      if (silence.signal.aborted) throw new Unreachable('it does not answer')
      // A kept connection that the other end has closed meanwhile says nothing of the next one.
      const reason = networkReason(error)
      throw reason === connectionCut ? new Transient(reason) : new Unreachable(reason)
    } finally {
      clearTimeout(timer)
    }
  }

  /** The body, which must not fall silent. */
  async *#chunks(response: Response, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    const reader = response.body?.getReader()
    if (!reader) return
    let timer: NodeJS.Timeout | undefined
    try {
      for (;;) {
        const silent = new Promise<never>((_, reject) => {
          timer = setTimeout(() => reject(new Transient('it sends no more')), this.#patience.silenceMs)
        })
        const { done, value } = await Promise.race([reader.read(), silent])
        clearTimeout(timer)
        if (done) return
        yield value
      }
    } catch (error) {
      if (error instanceof Transient || signal.aborted) throw error
      throw new Transient(networkReason(error))
    } finally {
      clearTimeout(timer)
      await reader.cancel().catch(() => {})
    }
  }

  /** @throws what an answer other than a success means for the person who asked */
  #check(response: Response, what: string): void {
    const { status, headers } = response
    if (status === 200 || status === 206) return
    response.body?.cancel().catch(() => {})
    const { endpoint, token } = this.#settings
    if (status === 429) throw new Transient('too many requests (429)', retryAfterMs(headers))
    if (status === 408 || status >= 500) throw new Transient(`it answers ${status}`, retryAfterMs(headers))
    const code = headers.get('x-error-code') ?? ''
    const repo = what.split('@')[0]?.split('/').slice(0, 2).join('/')
    if (code === 'GatedRepo' || status === 403) {
      throw new HubError(
        `${what}: ${endpoint} gives it only to those who have accepted its terms (${status}); accept them at ${endpoint}/${repo}, then set HF_TOKEN to a token of that account that may read it`,
      )
    }
    if (code === 'RevisionNotFound')
      throw new HubError(`${what}: ${endpoint} has the model, but no such revision (${status})`)
    if (code === 'EntryNotFound') throw new HubError(`${what}: ${endpoint} has no such file (${status})`)
    if (status === 401 || status === 404 || code === 'RepoNotFound') {
      const advice =
        token === null
          ? 'check the spelling; if it is private or gated, set HF_TOKEN'
          : 'check the spelling, and that the token in HF_TOKEN is valid and may read it'
      throw new HubError(
        `${what}: ${endpoint} has no such model for ${token === null ? 'the public' : 'you'} (${status}); ${advice}`,
      )
    }
    throw new HubError(`${what}: expected the file from ${endpoint}, found HTTP status ${status}`)
  }

  #unavailable(reason: string, attempts = 1): HubUnavailable {
    const tried = attempts > 1 ? ` (${attempts} attempts)` : ''
    return new HubUnavailable(`the hub ${this.#settings.endpoint} cannot be used: ${reason}${tried}`)
  }

  #strange(url: string, expected: string, found: unknown): HubError {
    // Where a file is stored is a signed URL; nobody else needs to see its query.
    return new HubError(
      `${url.split('?')[0]}: expected ${expected}, found ${typeof found === 'string' ? found : describe(found)}`,
    )
  }
}

class Unreachable extends Transient {}

/** From retry-after, in seconds or as a date, or from the hub's own `ratelimit: "api";r=0;t=<seconds>`. */
function retryAfterMs(headers: Headers): number | null {
  const value = headers.get('retry-after') ?? /;\s*t=(\d+)/.exec(headers.get('ratelimit') ?? '')?.[1] ?? ''
  if (/^\d{1,7}$/.test(value)) return Number(value) * 1000
  const date = Date.parse(value)
  return Number.isNaN(date) ? null : Math.max(0, date - Date.now())
}
