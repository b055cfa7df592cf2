// Tokens as an answer shows them beside their log-probabilities, and which of them belong to the text that is given out.

import type { TokenEvent } from '../engine/engine.js'
import type { Tokenizer } from '../models/tokenizer.js'

/** A token's bytes and the natural logarithm of its probability. */
export interface ShownToken {
  id: number
  /** the token's true bytes, which may be part of a character */
  bytes: Uint8Array
  /** the bytes as text, or null where they are not whole characters */
  text: string | null
  logprob: number
}

/** A generated token with its alternatives. */
export interface ShownChoice extends ShownToken {
  /** the most probable tokens, best first */
  top: ShownToken[]
  /** where the token's first character begins, in Unicode code points of the completion */
  offset: number
}

/** JSON has no -Infinity; this is what OpenAI and vLLM send for "very unlikely". */
const leastLogprob = -9999

const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** @param logprob becomes -9999 where it is less: JSON has no -Infinity */
export function show(tokenizer: Tokenizer, token: number, logprob: number): ShownToken {
  const bytes = tokenizer.tokenBytes(token)
  let text: string | null
  try {
    text = strict.decode(bytes)
  } catch {
    text = null
  }
  return { id: token, bytes, text, logprob: Math.max(logprob, leastLogprob) }
}

/** The token of an event, as answers show it. @param offset see ShownChoice */
export function showEvent(tokenizer: Tokenizer, event: TokenEvent, offset: number): ShownChoice {
  return {
    ...show(tokenizer, event.token, event.logprob),
    top: event.top.map(({ token, logprob }) => show(tokenizer, token, logprob)),
    offset,
  }
}

/**
 * Holds tokens back as long as their text is held back. A token belongs to the answer when its first character does: so a stream
 * and a whole answer show the same tokens, and tokens of a stop string are never shown.
 */
export class ShownTokens {
  #waiting: { start: number; token: ShownChoice }[] = []

  /** @param start where the token's first character begins, in UTF-16 units of the completion */
  add(start: number, token: ShownChoice): void {
    this.#waiting.push({ start, token })
  }

  /** Tokens that begin before `length`, the UTF-16 units given out so far. */
  take(length: number): ShownChoice[] {
    if (this.#waiting.length === 0) return []
    const rest = this.#waiting.findIndex(({ start }) => start >= length)
    const taken = rest === -1 ? this.#waiting : this.#waiting.slice(0, rest)
    this.#waiting = rest === -1 ? [] : this.#waiting.slice(rest)
    return taken.map(({ token }) => token)
  }
}
