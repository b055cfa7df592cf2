// Responses that clients may come back to: in memory, so many and no more, and for a day.

import { ApiError } from '../errors.js'
import type { ChatMessage } from '../generation/template.js'
import type { ResponseObject } from './response_shapes.js'

/** UTF-16 units of all conversations together, at most. */
const maxLength = 32 * 1024 * 1024
const maxResponses = 10_000
const expireMs = 24 * 60 * 60 * 1000

export interface StoredResponse {
  response: ResponseObject
  /** what the model read, without the instructions, and then its answer */
  conversation: readonly ChatMessage[]
  /** how many messages of the conversation are the answer: 0 or 1 */
  numAnswers: number
  /** ends a response that runs in the background */
  cancel: (() => void) | null
}

export class ResponseStore {
  /** oldest first */
  readonly #entries = new Map<string, { stored: StoredResponse; length: number; expires: number }>()
  #length = 0

  /** Keeps a response, or its newer state; the oldest make room for it. */
  put(stored: StoredResponse): void {
    this.#remove(stored.response.id)
    const length = stored.conversation.reduce((sum, { content }) => sum + content.length + 100, 0)
    this.#entries.set(stored.response.id, { stored, length, expires: Date.now() + expireMs })
    this.#length += length
    for (const [id, { stored, expires }] of this.#entries) {
      const fits = this.#length <= maxLength && this.#entries.size <= maxResponses
      if (fits && expires > Date.now()) break
      stored.cancel?.()
      this.#remove(id)
    }
  }

  /** @throws ApiError when there is none, or none any more */
  get(id: string, param: string | null = null): StoredResponse {
    const entry = this.#entries.get(id)
    if (entry && entry.expires > Date.now()) return entry.stored
    throw new ApiError('response_not_found', `There is no response with the id '${id.slice(0, 100)}'.`, param)
  }

  delete(id: string): void {
    this.get(id).cancel?.()
    this.#remove(id)
  }

  get size(): number {
    return this.#entries.size
  }

  #remove(id: string): void {
    this.#length -= this.#entries.get(id)?.length ?? 0
    this.#entries.delete(id)
  }
}
