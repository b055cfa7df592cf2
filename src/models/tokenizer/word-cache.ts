// Ids of words that came before: text repeats itself.

const MAX_WORD = 64
const MAX_WORDS = 16384

/** Forgets the older half when it is full. */
export class WordCache {
  #young = new Map<string, Int32Array>()
  #old = new Map<string, Int32Array>()

  get(word: string): Int32Array | undefined {
    const young = this.#young.get(word)
    if (young !== undefined) return young
    const old = this.#old.get(word)
    if (old !== undefined) this.#set(word, old)
    return old
  }

  /** @param ids of the word, asked for only if it is kept */
  add(word: string, ids: () => Int32Array): void {
    if (word.length <= MAX_WORD) {
      // A copy: a slice would keep the whole text alive that it was cut from.
      this.#set(` ${word}`.slice(1), ids())
    }
  }

  #set(word: string, ids: Int32Array): void {
    if (this.#young.size >= MAX_WORDS) {
      this.#old = this.#young
      this.#young = new Map()
    }
    this.#young.set(word, ids)
  }
}
