// Text → token ids. Long text is encoded in a thread of its own, so that nobody else's tokens wait for it.

import { Worker } from 'node:worker_threads'
import type { Tokenizer } from '../models/tokenizer.js'
import type { Piece } from './prompt.js'

/** UTF-16 units that are encoded here and now; more goes to the thread. */
const longText = 8192

/** A job for encode_thread.ts. */
export interface EncodeJob {
  id: number
  pieces: Piece[]
  addSpecialTokens: boolean
}

/** Its answer. */
export type EncodeReply = { id: number; ids: Int32Array } | { id: number; error: string }

/** Token ids of all pieces, in order. */
export function encodePieces(tokenizer: Tokenizer, pieces: readonly Piece[], addSpecialTokens: boolean): Int32Array {
  const ids: number[] = []
  for (const { text, allowSpecial } of pieces) {
    // Half of a surrogate pair is no character; it becomes U+FFFD as in every UTF-8 encoder.
    for (const id of tokenizer.encode(text.replace(/\p{Surrogate}/gu, '\ufffd'), { addSpecialTokens, allowSpecial })) {
      ids.push(id)
    }
  }
  return Int32Array.from(ids)
}

export class Encoder {
  readonly #tokenizer: Tokenizer
  readonly #folder: string
  readonly #threadFile: URL | null
  #worker: Worker | null = null
  #nextId = 0
  readonly #waiting = new Map<number, { resolve(ids: Int32Array): void; reject(error: Error): void }>()

  /**
   * @param folder of the model, from which the thread loads its own tokenizer when it is first needed
   * @param threadFile compiled encode_thread.js, or null to encode everything in this thread
   */
  constructor(tokenizer: Tokenizer, folder: string, threadFile: URL | null) {
    this.#tokenizer = tokenizer
    this.#folder = folder
    this.#threadFile = threadFile
  }

  /** @param addSpecialTokens add what the tokenizer puts around a text, such as BOS */
  async encode(pieces: Piece[], addSpecialTokens: boolean): Promise<Int32Array> {
    const length = pieces.reduce((sum, { text }) => sum + text.length, 0)
    if (length <= longText || this.#threadFile === null) {
      return encodePieces(this.#tokenizer, pieces, addSpecialTokens)
    }
    const worker = this.#start(this.#threadFile)
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      worker.postMessage({ id, pieces, addSpecialTokens } satisfies EncodeJob)
    })
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  #start(file: URL): Worker {
    if (this.#worker) return this.#worker
    const worker = new Worker(file, { workerData: this.#folder })
    worker.unref()
    worker.on('message', (reply: EncodeReply) => {
      const waiting = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ('ids' in reply) waiting?.resolve(reply.ids)
      else waiting?.reject(new Error(reply.error))
    })
    const lost = (error: Error) => {
      if (this.#worker === worker) this.#worker = null
      for (const { reject } of this.#waiting.values()) reject(error)
      this.#waiting.clear()
    }
    worker.on('error', lost)
    worker.on('exit', () => lost(new Error('the encoding thread ended')))
    this.#worker = worker
    return worker
  }
}
