// Text → token ids, in a thread of its own: nobody's tokens wait for another's text, however long it is.

import { Worker } from 'node:worker_threads'
import { onAbort } from '../engine/on_abort.js'
import { ApiError } from '../errors.js'
import { type EncodeOptions, makeTokenizer, type Tokenizer, type TokenizerData } from '../models/tokenizer.js'

/** What encode_thread.ts begins with: a tokenizer, or the folder of one, which it reads and gives back as its first message. */
export type EncodeThreadData = { tokenizer: TokenizerData } | { folder: string }

/** What encode_thread.ts is told: a text to encode, or that nobody waits for one any more. */
export type EncodeMessage = { id: number; text: string; options: EncodeOptions } | { cancelled: number }

/** Its answer. */
export type EncodeReply = { id: number; ids: Int32Array } | { id: number; error: string; tookTooLong: boolean }

interface Waiting {
  resolve(ids: Int32Array): void
  reject(error: unknown): void
}

export class Encoder {
  readonly tokenizer: Tokenizer
  readonly #threadFile: URL | null
  #worker: Worker | null = null
  #nextId = 0
  readonly #waiting = new Map<number, Waiting>()

  /**
   * Reads a folder's tokenizer in the thread that will encode with it.
   * @param threadFile compiled encode_thread.js
   * @throws Error with the text of the ModelError that loadTokenizer throws
   */
  static async read(folder: string, threadFile: URL): Promise<Encoder> {
    const worker = startThread(threadFile, { folder })
    const data = await new Promise<TokenizerData>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    return new Encoder(makeTokenizer(data), threadFile, worker)
  }

  /**
   * @param threadFile compiled encode_thread.js, or null to encode in this thread
   * @param worker the thread, where it runs already
   */
  constructor(tokenizer: Tokenizer, threadFile: URL | null, worker: Worker | null = null) {
    this.tokenizer = tokenizer
    this.#threadFile = threadFile
    if (worker !== null) this.#worker = this.#listenTo(worker)
    else if (threadFile !== null) this.#worker = this.#start(threadFile)
  }

  /**
   * @param signal aborted when nobody waits for the ids any more
   * @throws ApiError when the tokenizer cannot do it in a sensible time; what the signal was aborted with
   */
  async encode(text: string, options: EncodeOptions, signal?: AbortSignal): Promise<Int32Array> {
    signal?.throwIfAborted()
    if (this.#threadFile === null) return Int32Array.from(this.tokenizer.encode(text, options))
    this.#worker ??= this.#start(this.#threadFile)
    const worker = this.#worker
    const id = this.#nextId++
    const cancel = () => {
      this.#waiting.get(id)?.reject(signal?.reason)
      worker.postMessage({ cancelled: id } satisfies EncodeMessage)
    }
    const stopListening = signal && onAbort(signal, cancel)
    try {
      return await new Promise<Int32Array>((resolve, reject) => {
        this.#waiting.set(id, { resolve, reject })
        worker.postMessage({ id, text, options } satisfies EncodeMessage)
      })
    } finally {
      this.#waiting.delete(id)
      stopListening?.()
    }
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  #start(file: URL): Worker {
    const { data } = this.tokenizer
    if (data === undefined) throw new Error('this tokenizer encodes in no other thread')
    return this.#listenTo(startThread(file, { tokenizer: data }))
  }

  #listenTo(worker: Worker): Worker {
    worker.unref()
    worker.on('message', (reply: EncodeReply) => {
      const waiting = this.#waiting.get(reply.id)
      if ('ids' in reply) waiting?.resolve(reply.ids)
      else waiting?.reject(reply.tookTooLong ? new ApiError('tokenizer_failed', reply.error) : new Error(reply.error))
    })
    const lost = (error: Error) => {
      if (this.#worker !== worker) return
      this.#worker = null
      for (const { reject } of this.#waiting.values()) reject(error)
    }
    worker.on('error', lost)
    worker.on('exit', () => lost(new Error('the encoding thread ended')))
    return worker
  }
}

function startThread(file: URL, data: EncodeThreadData): Worker {
  return new Worker(file, { workerData: data })
}
