// Tokens that came from native code and that nobody has read yet: packed as they came, so that a reader who is slow holds some 20 bytes
// a token instead of an object.

import { FinishReasonValues } from './contract.js'
import type { TokenEvent } from './engine.js'

/** Words of a queue that holds nothing. */
const leastWords = 16

/** Memory of a token with `numTop` of the most probable ones beside it. */
export const tokenBytes = (numTop: number) => 4 * (5 + 2 * numTop)

/** First in, first out. */
export class PackedTokens {
  #words = new Int32Array(leastWords)
  #floats = new Float32Array(this.#words.buffer)
  /** the tokens are #words[#start] to #words[#end - 1], each behind the number of its words */
  #start = 0
  #end = 0

  get empty(): boolean {
    return this.#start === this.#end
  }

  /** @param words of which those from `start` to `end` are a token event; see PackedEvents in native/engine/events.h */
  push(words: Int32Array, start: number, end: number): void {
    this.#reserve(end - start + 1)
    this.#words[this.#end++] = end - start
    for (let at = start; at < end; at++) this.#words[this.#end++] = words[at] as number
  }

  /** Takes the oldest out; there must be one. */
  shift(): TokenEvent {
    const start = this.#start + 1
    const end = start + (this.#words[this.#start] as number)
    const event = readToken(this.#words, this.#floats, start, end)
    this.#start = end
    if (this.empty) {
      this.#start = this.#end = 0
      if (this.#words.length > 64 * leastWords) this.#move(leastWords)
    }
    return event
  }

  #reserve(size: number): void {
    if (this.#end + size <= this.#words.length) return
    const used = this.#end - this.#start
    // Where half is free it is enough to move the rest to the front.
    if (2 * (used + size) <= this.#words.length) this.#move(this.#words.length)
    else this.#move(2 * Math.max(this.#words.length, size))
  }

  /** Into a buffer of so many words, or to the front of this one. */
  #move(length: number): void {
    const { buffer } = this.#words
    if (length === this.#words.length) {
      this.#words.copyWithin(0, this.#start, this.#end)
    } else {
      const rest = new Int32Array(buffer, 4 * this.#start, this.#end - this.#start)
      this.#words = new Int32Array(length)
      this.#words.set(rest)
      this.#floats = new Float32Array(this.#words.buffer)
    }
    this.#end -= this.#start
    this.#start = 0
  }
}

function readToken(words: Int32Array, floats: Float32Array, start: number, end: number): TokenEvent {
  const top: TokenEvent['top'] = []
  for (let i = start + 4; i < end; i += 2) top.push({ token: words[i] as number, logprob: floats[i + 1] as number })
  return {
    token: words[start + 1] as number,
    logprob: floats[start + 2] as number,
    rank: words[start + 3] as number,
    top,
    finish: FinishReasonValues[words[start] as number] as TokenEvent['finish'],
  }
}
