// Byte-pair encoding: symbols are merged in pairs, always the pair of the best rank, of equal ones the leftmost.

import {
  type ByteStringTable,
  findBytes,
  hashByte,
  hashStart,
  packByteStrings,
  sharedInt32,
  tableOf,
} from './byte-strings.js'
import { byteCharacters, byteLevelBytes } from './byte-table.js'
import type { BpeModel, Merges } from './definition.js'
import { IdList } from './id-list.js'
import { WordCache } from './word-cache.js'

/** Everything that merging needs, in memory that threads can share. Ids: -1 is none. */
export interface BpeData {
  type: 'BPE'
  /** open addressing, four numbers a slot: left id, right id, rank + 1 (0 is empty), id of the merged token */
  merges: Int32Array
  /** words are text whose bytes are the first symbols; else their characters are */
  byteLevel: boolean
  /** the token of each byte: the first symbols, or what a character without a token becomes */
  byteIds: Int32Array | null
  /** the tokens of single characters: of the basic plane, and others as pairs of code point and id */
  basicIds: Int32Array
  otherIds: Int32Array
  unkId: number
  fuseUnk: boolean
  /** words that are tokens and are not merged */
  words: ByteStringTable | null
  /** code units that no merge joins with a U+2581 after them are 1 */
  cutBefore: Uint8Array | null
}

/** SentencePiece's space. */
const MARK = 0x2581

/** Words of more symbols are merged with a heap. */
const SHORT = 64

const NO_RANK = 0x7fffffff

/** @param special ids that no text may become */
export function compileBpe(model: BpeModel, byteLevel: boolean, special: ReadonlySet<number>): BpeData {
  const { vocab } = model
  const data: BpeData = {
    type: 'BPE',
    merges: compileMerges(model.merges, special),
    byteLevel,
    byteIds: compileByteIds(model, byteLevel),
    basicIds: sharedInt32(0x10000).fill(-1),
    otherIds: sharedInt32(0),
    unkId: model.unk_token === null ? -1 : (vocab.get(model.unk_token) ?? -1),
    fuseUnk: model.fuse_unk,
    words: null,
    cutBefore: null,
  }
  if (!byteLevel) {
    const others: number[] = []
    for (const [token, id] of vocab) {
      if (token.length > 2 || special.has(id)) continue
      const code = token.codePointAt(0) ?? 0
      if (token.length === 1) data.basicIds[code] = id
      else if (code > 0xffff) others.push(code, id)
    }
    data.otherIds = sharedInt32(others.length)
    data.otherIds.set(others)
    // A character that leaves no symbol makes neighbours of those beside it: then there is no place to cut.
    const complete = data.unkId >= 0 || data.byteIds?.includes(-1) === false
    if (complete && (data.basicIds[MARK] ?? -1) >= 0 && !model.ignore_merges) data.cutBefore = findCuts(model)
  }
  if (model.ignore_merges) {
    const bytesOf = byteLevel ? byteLevelBytes : (token: string) => Buffer.from(token)
    const words = [...vocab].filter(([, id]) => !special.has(id))
    const size = words.reduce((most, [, id]) => Math.max(most, id + 1), 0)
    const strings = packByteStrings(
      words.map(([token, id]) => [id, bytesOf(token)] as const),
      size,
    )
    data.words = tableOf(
      strings,
      words.map(([, id]) => id),
      words.length,
    )
  }
  return data
}

function compileMerges(merges: Merges, special: ReadonlySet<number>): Int32Array {
  let capacity = 16
  while (capacity < merges.length / 2) capacity *= 2
  const table = sharedInt32(4 * capacity)
  for (let i = 0; i < merges.length; i += 4) {
    const left = merges[i] as number
    const right = merges[i + 1] as number
    const merged = merges[i + 3] as number
    if (special.has(merged)) continue
    const slot = mergeSlot(table, left, right)
    table[slot] = left
    table[slot + 1] = right
    table[slot + 2] = (merges[i + 2] as number) + 1
    table[slot + 3] = merged
  }
  return table
}

function compileByteIds({ vocab, byte_fallback }: BpeModel, byteLevel: boolean): Int32Array | null {
  if (!byteLevel && !byte_fallback) return null
  return sharedInt32(256).map((_, byte) => vocab.get(byteLevel ? (byteCharacters[byte] ?? '') : byteToken(byte)) ?? -1)
}

/** SentencePiece's name of a byte. */
export function byteToken(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
}

/** Where no merge goes over a space, words can be merged by themselves, and remembered. */
function findCuts({ vocab, merges }: BpeModel): Uint8Array {
  const cuts = new Uint8Array(new SharedArrayBuffer(0x10000)).fill(1)
  cuts[MARK] = 0
  const first = new Map(Array.from(vocab, ([token, id]) => [id, token.charCodeAt(0)]))
  const last = new Map(Array.from(vocab, ([token, id]) => [id, token.charCodeAt(token.length - 1)]))
  for (let i = 0; i < merges.length; i += 4) {
    // Every border inside the result was made by a merge, so only this one's is looked at.
    if (first.get(merges[i + 1] ?? 0) === MARK) cuts[last.get(merges[i] ?? 0) ?? MARK] = 0
  }
  return cuts
}

/** Where a pair stands in the table, or the empty slot where it would. */
function mergeSlot(table: Int32Array, left: number, right: number): number {
  const mask = table.length / 4 - 1
  let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)
  hash ^= hash >>> 15
  for (let i = hash & mask; ; i = (i + 1) & mask) {
    const slot = 4 * i
    if (table[slot + 2] === 0 || (table[slot] === left && table[slot + 1] === right)) return slot
  }
}

export class Bpe {
  readonly #data: BpeData
  readonly #otherIds = new Map<number, number>()
  readonly #cache = new WordCache()
  /** symbols of the word at hand, ranks of the pairs that they start, and what those become */
  readonly #symbols = new IdList()
  readonly #ids = new Int32Array(SHORT)
  readonly #ranks = new Int32Array(SHORT)
  readonly #merged = new Int32Array(SHORT)

  constructor(data: BpeData) {
    this.#data = data
    for (let i = 0; i < data.otherIds.length; i += 2)
      this.#otherIds.set(data.otherIds[i] as number, data.otherIds[i + 1] as number)
  }

  /** Appends a word's ids; of a long word it returns the work that is left to do. */
  encode(word: string, out: IdList): Generator<void> | null {
    return this.#data.cutBefore === null
      ? this.#encodePart(word, out)
      : this.#encodeParts(word, this.#data.cutBefore, out)
  }

  *#encodeParts(word: string, cutBefore: Uint8Array, out: IdList): Generator<void> {
    let start = 0
    let parts = 0
    for (let at = 1; at <= word.length; at++) {
      const cut = word.charCodeAt(at) === MARK && cutBefore[word.charCodeAt(at - 1)] === 1
      if (!cut && at < word.length) continue
      const rest = this.#encodePart(word.slice(start, at), out)
      if (rest !== null) yield* rest
      start = at
      if ((++parts & 0x3ff) === 0) yield
    }
  }

  #encodePart(word: string, out: IdList): Generator<void> | null {
    const known = this.#cache.get(word)
    if (known !== undefined) {
      out.pushAll(known)
      return null
    }
    const start = out.length
    const whole = this.#findWord(word)
    if (whole >= 0) {
      out.push(whole)
    } else {
      const symbols = this.#symbols
      symbols.length = 0
      if (this.#data.byteLevel) this.#bytesToSymbols(word)
      else this.#charactersToSymbols(word)
      if (symbols.length > SHORT) return mergeLong(this.#data.merges, symbols.slice(), out)
      this.#mergeShort(symbols, out)
    }
    this.#cache.add(word, () => out.slice(start))
    return null
  }

  #findWord(word: string): number {
    const { words } = this.#data
    if (words === null) return -1
    const bytes = Buffer.from(word)
    let hash = hashStart
    for (const byte of bytes) hash = hashByte(hash, byte)
    return findBytes(words, hash, bytes, 0, bytes.length)
  }

  #bytesToSymbols(word: string): void {
    const { byteIds, unkId, fuseUnk } = this.#data
    let unknown = false
    for (const byte of Buffer.from(word)) {
      const id = byteIds?.[byte] ?? -1
      if (id >= 0) this.#symbols.push(id)
      else if (unkId >= 0 && !(fuseUnk && unknown)) this.#symbols.push(unkId)
      unknown = id < 0
    }
  }

  #charactersToSymbols(word: string): void {
    const { byteIds, unkId, fuseUnk, basicIds } = this.#data
    let unknown = false
    for (const char of word) {
      const id =
        char.length === 1
          ? (basicIds[char.charCodeAt(0)] as number)
          : (this.#otherIds.get(char.codePointAt(0) ?? 0) ?? -1)
      if (id >= 0) {
        this.#symbols.push(id)
        unknown = false
        continue
      }
      if (byteIds !== null) {
        const bytes = Buffer.from(char)
        if (bytes.every((byte) => (byteIds[byte] as number) >= 0)) {
          for (const byte of bytes) this.#symbols.push(byteIds[byte] as number)
          unknown = false
          continue
        }
      }
      if (unkId >= 0 && !(fuseUnk && unknown)) this.#symbols.push(unkId)
      unknown = true
    }
  }

  /** The best pair is looked for among all. */
  #mergeShort(symbols: IdList, out: IdList): void {
    const ids = this.#ids
    const ranks = this.#ranks
    const merged = this.#merged
    const table = this.#data.merges
    let length = symbols.length
    for (let i = 0; i < length; i++) ids[i] = symbols.at(i)
    const rate = (i: number) => {
      const slot = mergeSlot(table, ids[i] as number, ids[i + 1] as number)
      const rank = table[slot + 2] as number
      ranks[i] = rank === 0 ? NO_RANK : rank
      merged[i] = table[slot + 3] as number
    }
    for (let i = 0; i + 1 < length; i++) rate(i)
    for (;;) {
      let best = -1
      let bestRank = NO_RANK
      for (let i = 0; i + 1 < length; i++) {
        if ((ranks[i] as number) < bestRank) {
          bestRank = ranks[i] as number
          best = i
        }
      }
      if (best < 0) break
      ids[best] = merged[best] as number
      length--
      ids.copyWithin(best + 1, best + 2, length + 1)
      ranks.copyWithin(best + 1, best + 2, length)
      merged.copyWithin(best + 1, best + 2, length)
      if (best > 0) rate(best - 1)
      if (best + 1 < length) rate(best)
    }
    for (let i = 0; i < length; i++) out.push(ids[i] as number)
  }
}

/**
 * A heap of pairs over a linked list of symbols: O(n log n). An entry is rank * 2^31 + position; one whose pair has changed since is
 * passed over.
 * @param ids symbols, overwritten
 */
function* mergeLong(table: Int32Array, ids: Int32Array, out: IdList): Generator<void> {
  const length = ids.length
  const next = new Int32Array(length)
  const previous = new Int32Array(length)
  /** rank of the pair that starts here; 0: none */
  const ranks = new Int32Array(length)
  const merged = new Int32Array(length)
  // Each merge adds two entries at most and takes a symbol away.
  const heap = new Float64Array(3 * length)
  let size = 0
  const push = (entry: number) => {
    let at = size++
    while (at > 0) {
      const parent = (at - 1) >> 1
      if ((heap[parent] as number) <= entry) break
      heap[at] = heap[parent] as number
      at = parent
    }
    heap[at] = entry
  }
  const pop = (): number => {
    const top = heap[0] as number
    const entry = heap[--size] as number
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= size) break
      if (child + 1 < size && (heap[child + 1] as number) < (heap[child] as number)) child++
      if ((heap[child] as number) >= entry) break
      heap[at] = heap[child] as number
      at = child
    }
    heap[at] = entry
    return top
  }
  const rate = (at: number) => {
    const after = next[at] as number
    if (after === length) {
      ranks[at] = 0
      return
    }
    const slot = mergeSlot(table, ids[at] as number, ids[after] as number)
    ranks[at] = table[slot + 2] as number
    merged[at] = table[slot + 3] as number
    if (ranks[at] !== 0) push((ranks[at] as number) * 2 ** 31 + at)
  }

  for (let at = 0; at < length; at++) {
    next[at] = at + 1
    previous[at] = at - 1
  }
  for (let at = 0; at < length; at++) {
    rate(at)
    if ((at & 0x3fff) === 0x3fff) yield
  }
  for (let steps = 1; size > 0; steps++) {
    if ((steps & 0x3fff) === 0) yield
    const entry = pop()
    const rank = Math.floor(entry / 2 ** 31)
    const at = entry - rank * 2 ** 31
    if (ranks[at] !== rank) continue
    const taken = next[at] as number
    const after = next[taken] as number
    ids[at] = merged[at] as number
    ranks[taken] = 0
    next[at] = after
    if (after < length) previous[after] = at
    rate(at)
    const before = previous[at] as number
    if (before >= 0) rate(before)
  }
  for (let at = 0; at < length; at = next[at] as number) out.push(ids[at] as number)
}
