// Runs batches one after the other, beside the live traffic.

import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ApiError, asApiError } from '../errors.js'
import { newId, now } from './answer.js'
import { type AnswerLine, answeredIds, type BatchLine, checkLines, type LineError, readLines } from './batch_lines.js'
import type { Endpoint } from './call.js'
import type { RequestRecord, ServerState } from './context.js'
import { type FileStore, writeJson } from './file_store.js'
import { tell } from './record.js'

/** Nobody waits for a line as for an answer: whoever does comes first. */
const lowestPriority = 2 ** 31 - 1
/** Lines of a batch that run at the same time. */
const concurrency = 32
/** Until a line is tried again that found no room. */
const retryMs = 1000
/** Batches that are over and still listed. */
const mostKept = 10_000
const windowSeconds = 24 * 60 * 60

export type BatchStatus =
  | 'validating'
  | 'failed'
  | 'in_progress'
  | 'finalizing'
  | 'completed'
  | 'expired'
  | 'cancelling'
  | 'cancelled'

/** OpenAI's batch object. */
export interface Batch {
  id: string
  object: 'batch'
  endpoint: string
  errors?: { object: 'list'; data: LineError[] }
  input_file_id: string
  completion_window: '24h'
  status: BatchStatus
  output_file_id?: string
  error_file_id?: string
  created_at: number
  in_progress_at?: number
  expires_at: number
  finalizing_at?: number
  completed_at?: number
  failed_at?: number
  expired_at?: number
  cancelling_at?: number
  cancelled_at?: number
  request_counts: { total: number; completed: number; failed: number }
  metadata: Record<string, string> | null
}

/** What the folder keeps of a batch: the object, and the files that it writes. */
interface Entry {
  batch: Batch
  output: string
  error: string
}

/** Errors that say "not now": the line is tried again, and its batch goes on at the next start of the server. */
const passing = new Set<string>([
  'queue_full',
  'queue_timeout',
  'model_loading',
  'server_shutting_down',
  'engine_stalled',
])

export class Batches {
  readonly #state: ServerState
  readonly #files: FileStore
  readonly #endpoints: Readonly<Record<string, Endpoint>>
  /** oldest first */
  readonly #entries = new Map<string, Entry>()
  #running: { id: string; controller: AbortController } | null = null
  #stopped = false

  /** @param endpoints what a line may ask: path → endpoint */
  constructor(state: ServerState, files: FileStore, endpoints: Readonly<Record<string, Endpoint>>) {
    this.#state = state
    this.#files = files
    this.#endpoints = endpoints
    const found = readdirSync(files.folder)
      .filter((name) => /^batch_[0-9a-f]+\.json$/.test(name))
      .map((name): Entry => JSON.parse(readFileSync(join(files.folder, name), 'utf8')))
      .sort((a, b) => a.batch.created_at - b.batch.created_at)
    for (const entry of found) {
      this.#entries.set(entry.batch.id, entry)
      if (isOver(entry.batch)) continue
      files.resume(entry.output)
      files.resume(entry.error)
    }
    files.sweep()
  }

  /** Begins to work, or goes on with what an earlier life of the server left. */
  start(): void {
    this.#next()
  }

  /** Ends the work; what is not done is done after the next start. */
  stop(): void {
    this.#stopped = true
    this.#running?.controller.abort()
  }

  get endpoints(): string[] {
    return Object.keys(this.#endpoints)
  }

  create(input_file_id: string, endpoint: string, metadata: Record<string, string> | null): Batch {
    this.#files.get(input_file_id, 'input_file_id')
    const created_at = now()
    const batch: Batch = {
      id: newId('batch_'),
      object: 'batch',
      endpoint,
      input_file_id,
      completion_window: '24h',
      status: 'validating',
      created_at,
      expires_at: created_at + windowSeconds,
      request_counts: { total: 0, completed: 0, failed: 0 },
      metadata,
    }
    const entry = { batch, output: this.#files.begin(), error: this.#files.begin() }
    this.#entries.set(batch.id, entry)
    this.#save(entry)
    this.#prune()
    this.#next()
    return batch
  }

  list(): Batch[] {
    return [...this.#entries.values()].map(({ batch }) => batch)
  }

  /** @throws ApiError when there is none */
  get(id: string): Batch {
    return this.#entry(id).batch
  }

  /** What is done already stays; the rest is not done. @throws ApiError when the batch is over */
  cancel(id: string): Batch {
    const entry = this.#entry(id)
    if (isOver(entry.batch)) {
      throw new ApiError('invalid_value', `This batch is ${entry.batch.status}, so there is nothing to cancel.`)
    }
    Object.assign(entry.batch, { status: 'cancelling', cancelling_at: now() })
    this.#save(entry)
    if (this.#running?.id === id) this.#running.controller.abort()
    else this.#end(entry, 'cancelled')
    return entry.batch
  }

  /** The batch that reads or writes a file now. */
  userOf(fileId: string): string | undefined {
    return [...this.#entries.values()].find(
      ({ batch, output, error }) => !isOver(batch) && [batch.input_file_id, output, error].includes(fileId),
    )?.batch.id
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id)
    if (entry) return entry
    throw new ApiError('batch_not_found', `There is no batch with the id '${id.slice(0, 100)}'.`)
  }

  #save(entry: Entry): void {
    writeJson(join(this.#files.folder, `${entry.batch.id}.json`), entry)
  }

  /** Runs the oldest batch that is not over, unless one runs. */
  #next(): void {
    if (this.#running || this.#stopped || this.#state.phase.name !== 'ready') return
    const entry = [...this.#entries.values()].find(({ batch }) => !isOver(batch))
    if (!entry) return
    const controller = new AbortController()
    this.#running = { id: entry.batch.id, controller }
    this.#run(entry, controller.signal)
      .catch((error: unknown) => {
        if (this.#stopped) return
        this.#state.log('error', 'batch_failed', { batch_id: entry.batch.id, reason: String(error) })
        const { kind, message } = asApiError(error)
        this.#fail(entry, [{ code: kind, message, param: null, line: 0 }])
      })
      .finally(() => {
        this.#running = null
        this.#next()
      })
  }

  async #run(entry: Entry, signal: AbortSignal): Promise<void> {
    const { batch } = entry
    const input = this.#files.path(batch.input_file_id)
    if (batch.status === 'cancelling') return this.#end(entry, 'cancelled')
    if (!existsSync(input)) throw new ApiError('file_not_found', 'The input file is not there any more.')
    if (batch.status === 'validating') {
      const { total, errors } = await checkLines(input, batch.endpoint)
      batch.request_counts.total = total
      if (errors.length > 0) return this.#fail(entry, errors)
      if (isCancelling(batch)) return this.#end(entry, 'cancelled')
      Object.assign(batch, { status: 'in_progress', in_progress_at: now() })
      this.#save(entry)
    }
    const completed = await answeredIds(this.#files.path(entry.output))
    const failed = await answeredIds(this.#files.path(entry.error))
    this.#files.resume(entry.output)
    this.#files.resume(entry.error)
    Object.assign(batch.request_counts, { completed: completed.length, failed: failed.length })
    await this.#runLines(entry, new Set([...completed, ...failed]), signal)
    if (this.#stopped) return
    if (isCancelling(batch)) return this.#end(entry, 'cancelled')
    this.#end(entry, now() > batch.expires_at ? 'expired' : 'completed')
  }

  /** So many lines at a time, in the file's order. */
  async #runLines(entry: Entry, done: ReadonlySet<string>, signal: AbortSignal): Promise<void> {
    const running = new Set<Promise<void>>()
    let failure: unknown = null
    for await (const line of readLines(this.#files.path(entry.batch.input_file_id))) {
      if (signal.aborted || failure !== null) break
      if (done.has(line.custom_id)) continue
      const work = this.#runLine(entry, line, signal)
        .catch((error: unknown) => {
          failure ??= error
        })
        .finally(() => running.delete(work))
      running.add(work)
      if (running.size >= concurrency) await Promise.race(running)
    }
    await Promise.all(running)
    if (failure !== null) throw failure
  }

  async #runLine(entry: Entry, { custom_id, body }: BatchLine, signal: AbortSignal): Promise<void> {
    const { batch } = entry
    const record = lineRecord()
    const answer = async (response: AnswerLine['response'], error: AnswerLine['error']) => {
      const line: AnswerLine = { id: newId('batch_req_'), custom_id, response, error }
      const good = response?.status_code === 200
      await this.#files.append(good ? entry.output : entry.error, `${JSON.stringify(line)}\n`)
      batch.request_counts[good ? 'completed' : 'failed']++
    }
    while (!signal.aborted) {
      if (now() > batch.expires_at) {
        await answer(null, {
          code: 'batch_expired',
          message: 'The request was not reached within the completion window.',
        })
        return
      }
      try {
        const endpoint = this.#endpoints[batch.endpoint]
        if (!endpoint) throw new ApiError('unknown_url', `There is nothing at POST ${batch.endpoint}.`)
        const call = { state: this.#state, record, signal, unlimited: true } as const
        const reply = await endpoint(call, { ...(body as object), priority: lowestPriority })
        if (signal.aborted) return
        await answer({ status_code: 200, request_id: record.id, body: 'json' in reply ? reply.json : {} }, null)
        return
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof ApiError && error.kind === 'files_full') throw error
        if (error instanceof ApiError && passing.has(error.kind)) {
          if (this.#state.phase.name === 'draining') return
          await pause(retryMs, signal)
          continue
        }
        const told = tell(error, this.#state, record)
        await answer({ status_code: told.status, request_id: record.id, body: told.body() }, null)
        return
      }
    }
  }

  #fail(entry: Entry, errors: LineError[]): void {
    entry.batch.errors = { object: 'list', data: errors }
    this.#end(entry, 'failed')
  }

  /** The batch is over: what it has written becomes files that clients see. */
  #end(entry: Entry, status: 'completed' | 'failed' | 'expired' | 'cancelled'): void {
    const { batch } = entry
    const { completed, failed } = batch.request_counts
    if (completed > 0) {
      batch.output_file_id = entry.output
      this.#files.keep(entry.output, `${batch.id}_output.jsonl`, 'batch_output', now())
    } else this.#files.drop(entry.output)
    if (failed > 0) {
      batch.error_file_id = entry.error
      this.#files.keep(entry.error, `${batch.id}_error.jsonl`, 'batch_output', now())
    } else this.#files.drop(entry.error)
    if (status === 'completed') batch.finalizing_at = now()
    Object.assign(batch, { status, [`${status}_at`]: now() })
    this.#save(entry)
    this.#state.log('info', 'batch', { batch_id: batch.id, status, completed, failed })
  }

  /** Forgets the oldest batches that are over, when there are many. */
  #prune(): void {
    const over = [...this.#entries.values()].filter(({ batch }) => isOver(batch))
    for (const { batch } of over.slice(0, Math.max(0, over.length - mostKept))) {
      this.#entries.delete(batch.id)
      rmSync(join(this.#files.folder, `${batch.id}.json`), { force: true })
    }
  }
}

function isOver({ status }: Batch): boolean {
  return status === 'completed' || status === 'failed' || status === 'expired' || status === 'cancelled'
}

/** Asked again after a wait, in which a client may have cancelled. */
function isCancelling({ status }: Batch): boolean {
  return status === 'cancelling'
}

function lineRecord(): RequestRecord {
  return { id: newId('req_'), started: performance.now(), streaming: false, end: () => {} }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms)
    function done() {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    signal.addEventListener('abort', done)
  })
}
