// Token ids in, text out. The text of all calls together is what the tokenizer makes of all ids together: no call gives out part of a
// character, and a completion goes on where its prompt ends.

import type { Tokenizer } from '../models/tokenizer.js'

/** One completion's text. Bytes that are no UTF-8 become U+FFFD. */
export class Detokenizer {
  // A byte order mark is text that the model wrote, so it stays.
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  readonly #tokenizer: Pick<Tokenizer, 'tokenBytes' | 'firstTokenBytes' | 'isSpecial'>
  #atStart: boolean
  /** the decoder holds no part of a character */
  #between = true

  /** @param prompt what the completion continues; none for the answer of an encoder-decoder, which begins a text */
  constructor(
    tokenizer: Pick<Tokenizer, 'tokenBytes' | 'firstTokenBytes' | 'isSpecial'>,
    prompt: Iterable<number> = [],
  ) {
    this.#tokenizer = tokenizer
    this.#atStart = true
    for (const id of prompt) {
      if (tokenizer.isSpecial(id) || tokenizer.tokenBytes(id).length === 0) continue
      this.#atStart = false
      break
    }
  }

  /** Text that this token completes; '' while a character is still open. */
  push(id: number): string {
    const bytes = this.#tokenizer.tokenBytes(id)
    if (bytes.length === 0) return ''
    const first = this.#atStart
    this.#atStart = false
    return this.#decode(first ? this.#tokenizer.firstTokenBytes(id) : bytes)
  }

  #decode(bytes: Uint8Array): string {
    // Most tokens are ASCII, and a decoder takes longer to call than to do that.
    const ascii = this.#between ? asciiText(bytes) : null
    if (ascii !== null) return ascii
    const last = bytes[bytes.length - 1]
    if (last !== undefined) this.#between = last < 0x80
    return this.#decoder.decode(bytes, { stream: true })
  }

  /** What is left at the end: U+FFFD where a character was cut off. */
  end(): string {
    return this.#decoder.decode()
  }
}

/** @returns null where a byte is not ASCII */
function asciiText(bytes: Uint8Array): string | null {
  let text = ''
  for (const byte of bytes) {
    if (byte >= 0x80) return null
    text += String.fromCharCode(byte)
  }
  return text
}

/** The length that Python and OpenAI count: characters beyond U+FFFF are one. */
export function countCodePoints(text: string): number {
  let count = text.length
  for (let i = 0; i < text.length; i++) {
    // The second half of a surrogate pair is no code point of its own.
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) count--
  }
  return count
}
