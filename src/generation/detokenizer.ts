// Bytes in, text out. The text of all calls together is what TextDecoder makes of all bytes together, however they were split.

/** One completion's text. It never gives out part of a character; bytes that are no UTF-8 become U+FFFD. */
export class Detokenizer {
  // A byte order mark is text that the model wrote, so it stays.
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  /** Text that these bytes complete; '' while a character is still open. */
  push(bytes: Uint8Array): string {
    return bytes.length === 0 ? '' : this.#decoder.decode(bytes, { stream: true })
  }

  /** What is left at the end: U+FFFD where a character was cut off. */
  end(): string {
    return this.#decoder.decode()
  }
}
