// SentencePiece's unigram model: of all ways to write a word with pieces, the one whose scores have the largest sum (Viterbi).

import { byteToken } from './bpe.js'
import {
  type ByteStringTable,
  findBytes,
  hashByte,
  hashStart,
  packByteStrings,
  sharedInt32,
  tableOf,
} from './byte-strings.js'
import type { UnigramModel } from './definition.js'
import type { IdList } from './id-list.js'
import { WordCache } from './word-cache.js'

/** Everything that the search needs, in memory that threads can share. Ids: -1 is none. */
export interface UnigramData {
  type: 'Unigram'
  pieces: ByteStringTable
  /** by id */
  scores: Float64Array
  longestPiece: number
  unkId: number
  /** SentencePiece's penalty: ten below the worst piece */
  unkScore: number
  /** what the bytes of an unknown character become, where the vocabulary has all of them */
  byteIds: Int32Array | null
}

/** @param special ids that no text may become */
export function compileUnigram(model: UnigramModel, special: ReadonlySet<number>): UnigramData {
  const { vocab, unk_id, byte_fallback } = model
  const scores = new Float64Array(new SharedArrayBuffer(8 * vocab.length))
  const bytes = vocab.map(([piece]) => Buffer.from(piece))
  const searched: number[] = []
  let longestPiece = 0
  let worst = 0
  vocab.forEach(([, score], id) => {
    scores[id] = score
    worst = Math.min(worst, score)
    const length = bytes[id]?.length ?? 0
    if (special.has(id) || length === 0) return
    searched.push(id)
    longestPiece = Math.max(longestPiece, length)
  })
  const strings = packByteStrings(
    bytes.map((piece, id) => [id, piece] as const),
    vocab.length,
  )
  let byteIds: Int32Array | null = null
  if (byte_fallback) {
    const ids = new Map(vocab.map(([piece], id) => [piece, id]))
    byteIds = sharedInt32(256).map((_, byte) => ids.get(byteToken(byte)) ?? -1)
    if (byteIds.includes(-1)) byteIds = null
  }
  return {
    type: 'Unigram',
    pieces: tableOf(strings, searched, searched.length),
    scores,
    longestPiece,
    unkId: unk_id ?? -1,
    unkScore: worst - 10,
    byteIds,
  }
}

/** Characters that are searched at once. */
const STEP = 2048

export class Unigram {
  readonly #data: UnigramData
  readonly #cache = new WordCache()

  constructor(data: UnigramData) {
    this.#data = data
  }

  /** Appends a word's ids; of a long word it returns the work that is left to do. */
  encode(word: string, out: IdList): Generator<void> | null {
    const known = this.#cache.get(word)
    if (known !== undefined) {
      out.pushAll(known)
      return null
    }
    const search = this.#search(Buffer.from(word), out)
    if (word.length > STEP) return search
    const start = out.length
    search.next()
    this.#cache.add(word, () => out.slice(start))
    return null
  }

  *#search(text: Uint8Array, out: IdList): Generator<void> {
    const { pieces, scores, longestPiece, unkId, unkScore } = this.#data
    const length = text.length
    /** of the best way to each byte: its score, where its last piece begins (-1: no way yet) and the piece's id (-1: unknown) */
    const best = new Float64Array(length + 1)
    const from = new Int32Array(length + 1).fill(-1)
    const ids = new Int32Array(length + 1)
    let start = 0
    for (let steps = 1; start < length; steps++) {
      if (steps % STEP === 0) yield
      const here = best[start] as number
      const character = start + characterLength(text[start] as number)
      let single = false
      let hash = hashStart
      const limit = Math.min(length, start + longestPiece)
      for (let end = start; end < limit; ) {
        hash = hashByte(hash, text[end++] as number)
        // Pieces end where characters do.
        if (end < length && ((text[end] as number) & 0xc0) === 0x80) continue
        const id = findBytes(pieces, hash, text, start, end)
        if (id < 0) continue
        const score = (scores[id] as number) + here
        if (from[end] === -1 || score > (best[end] as number)) {
          best[end] = score
          from[end] = start
          ids[end] = id
        }
        if (end === character) single = true
      }
      if (!single) {
        const score = unkScore + here
        if (from[character] === -1 || score > (best[character] as number)) {
          best[character] = score
          from[character] = start
          ids[character] = -1
        }
      }
      start = character
    }
    const path: number[] = []
    for (let end = length; end > 0; end = from[end] as number) path.push(end)
    let unknownFrom = -1
    for (const end of path.reverse()) {
      const id = ids[end] as number
      const known = id >= 0 && id !== unkId
      if (!known && unknownFrom < 0) unknownFrom = from[end] as number
      if (known && unknownFrom >= 0) {
        this.#pushUnknown(text.subarray(unknownFrom, from[end]), out)
        unknownFrom = -1
      }
      if (known) out.push(id)
    }
    if (unknownFrom >= 0) this.#pushUnknown(text.subarray(unknownFrom), out)
  }

  /** Unknown characters in a row are one token, or the tokens of their bytes. */
  #pushUnknown(text: Uint8Array, out: IdList): void {
    const { byteIds, pieces, unkId } = this.#data
    const hash = text.reduce(hashByte, hashStart)
    const whole = text.length <= this.#data.longestPiece ? findBytes(pieces, hash, text, 0, text.length) : -1
    if (whole >= 0) out.push(whole)
    else if (byteIds !== null) for (const byte of text) out.push(byteIds[byte] as number)
    else if (unkId >= 0) out.push(unkId)
  }
}

/** Bytes of a character, by its first. */
function characterLength(first: number): number {
  if (first < 0x80) return 1
  if (first < 0xe0) return 2
  return first < 0xf0 ? 3 : 4
}
