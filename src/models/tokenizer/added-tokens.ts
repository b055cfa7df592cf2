// Finds added tokens in a text: of those that begin at the leftmost place the longest, as Hugging Face does.

import type { AddedToken } from './definition.js'

interface Node {
  next: Map<number, Node>
  token: AddedToken | null
}

/** A piece of a text: a token, or text between tokens. */
export type Section = { id: number } | { start: number; end: number }

const letter = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u

export class AddedTokens {
  readonly #root: Node = { next: new Map(), token: null }
  /** units that a token begins with: 1 */
  readonly #firsts = new Uint8Array(0x10000)

  /** @param contents what is looked for: each token with its text, which may have been normalized */
  constructor(contents: Iterable<readonly [content: string, token: AddedToken]>) {
    for (const [content, token] of contents) {
      if (content === '') continue
      this.#firsts[content.charCodeAt(0)] = 1
      let node = this.#root
      for (let i = 0; i < content.length; i++) {
        const unit = content.charCodeAt(i)
        let next = node.next.get(unit)
        if (next === undefined) {
          next = { next: new Map(), token: null }
          node.next.set(unit, next)
        }
        node = next
      }
      node.token = token
    }
  }

  /** @param allowed whether a token found at [start, end) counts; the text of one that does not is text */
  split(text: string, allowed: (token: AddedToken, start: number, end: number) => boolean): Section[] {
    const sections: Section[] = []
    let done = 0
    const firsts = this.#firsts
    for (let at = 0; at < text.length; ) {
      if (firsts[text.charCodeAt(at)] === 0) {
        at++
        continue
      }
      const found = this.#longestAt(text, at)
      if (found === null) {
        at++
        continue
      }
      const { token } = found
      let start = at
      let end = found.end
      at = end
      if (!allowed(token, start, end)) continue
      if (token.single_word && (endsWithLetter(text, start) || letter.test(characterAt(text, end)))) continue
      if (token.lstrip) {
        while (start > done && isSpace(text, start - 1)) start--
      }
      if (token.rstrip) {
        while (end < text.length && isSpace(text, end)) end++
      }
      if (done < start) sections.push({ start: done, end: start })
      sections.push({ id: token.id })
      done = end
    }
    if (done < text.length) sections.push({ start: done, end: text.length })
    return sections
  }

  #longestAt(text: string, at: number): { token: AddedToken; end: number } | null {
    let node = this.#root.next.get(text.charCodeAt(at))
    let found: { token: AddedToken; end: number } | null = null
    for (let end = at + 1; node !== undefined; node = node.next.get(text.charCodeAt(end++))) {
      if (node.token !== null) found = { token: node.token, end }
    }
    return found
  }
}

function isSpace(text: string, at: number): boolean {
  return /\p{White_Space}/u.test(text[at] ?? '')
}

function endsWithLetter(text: string, end: number): boolean {
  const low = (text.charCodeAt(end - 1) & 0xfc00) === 0xdc00
  return end > 0 && letter.test(characterAt(text, low ? end - 2 : end - 1))
}

function characterAt(text: string, at: number): string {
  const code = text.codePointAt(at)
  return code === undefined ? '' : String.fromCodePoint(code)
}
