// Stop strings: nothing that may belong to one leaves before it is known not to.

interface Stop {
  text: string
  /** failure[i]: length of the longest proper prefix of `text` that ends at its first i characters (Knuth, Morris, Pratt) */
  failure: Int32Array
  /** characters of `text` that the text so far ends with */
  matched: number
}

/**
 * Finds the first stop string that is complete, one character at a time, so that the result does not depend on how the text was split.
 * When two end at the same character the longer one counts: it begins earlier.
 */
export class StopMatcher {
  readonly #stops: Stop[]
  readonly #include: boolean
  #held = ''

  /**
   * @param stops none of them empty
   * @param include the text ends behind the stop string instead of before it
   */
  constructor(stops: readonly string[], include = false) {
    this.#include = include
    this.#stops = stops.map((text) => ({ text, failure: failureOf(text), matched: 0 }))
  }

  /**
   * Takes more text and gives out what cannot belong to a stop string any more.
   * @returns `stopped`: the stop string that is complete, or null; the text ends with it, and no more may be pushed
   */
  push(text: string): { text: string; stopped: string | null } {
    if (this.#stops.length === 0) return { text, stopped: null }
    const all = this.#held + text
    for (let i = 0; i < text.length; i++) {
      const character = text.charCodeAt(i)
      let longest = ''
      for (const stop of this.#stops) {
        while (stop.matched > 0 && stop.text.charCodeAt(stop.matched) !== character) {
          stop.matched = stop.failure[stop.matched] ?? 0
        }
        if (stop.text.charCodeAt(stop.matched) === character) stop.matched++
        if (stop.matched === stop.text.length && stop.matched > longest.length) longest = stop.text
      }
      if (longest !== '') {
        this.#held = ''
        const end = all.length - text.length + i + 1
        return { text: all.slice(0, this.#include ? end : end - longest.length), stopped: longest }
      }
    }
    let keep = 0
    for (const stop of this.#stops) keep = Math.max(keep, stop.matched)
    this.#held = all.slice(all.length - keep)
    return { text: all.slice(0, all.length - keep), stopped: null }
  }

  /** The text is over: what was held back belongs to it. */
  end(): string {
    const text = this.#held
    this.#held = ''
    return text
  }
}

function failureOf(text: string): Int32Array {
  const failure = new Int32Array(text.length + 1)
  let length = 0
  for (let i = 1; i < text.length; i++) {
    while (length > 0 && text.charCodeAt(i) !== text.charCodeAt(length)) length = failure[length] ?? 0
    if (text.charCodeAt(i) === text.charCodeAt(length)) length++
    failure[i + 1] = length
  }
  return failure
}
