// Pairs of tokens that join to a third, from the lists that files have or from the vocabulary alone.

import { ModelError } from '../model-error.js'
import { findBytes, hashByte, hashStart, packByteStrings, tableOf } from './byte-strings.js'
import type { Merges } from './definition.js'

/**
 * @param file for messages
 * @param pairs best first
 */
export function readMerges(
  file: string,
  vocab: ReadonlyMap<string, number>,
  pairs: readonly (readonly [left: string, right: string])[],
): Merges {
  const merges = new Int32Array(4 * pairs.length)
  pairs.forEach(([left, right], rank) => {
    const leftId = vocab.get(left)
    const rightId = vocab.get(right)
    const merged = vocab.get(left + right)
    // A merge whose result has no id would lose text without a word.
    if (leftId === undefined || rightId === undefined || merged === undefined) {
      throw new ModelError(
        `${file}: merges[${rank}]: expected two tokens that join to a third, found ${JSON.stringify([left, right])}`,
      )
    }
    merges.set([leftId, rightId, rank, merged], 4 * rank)
  })
  return merges
}

/**
 * The merges of a vocabulary that is stored without them: the earlier the third token's id, the better; of merges to the same token the
 * one with the shorter left side.
 * @param skip ids that take no part
 */
export function mergesOf(vocab: ReadonlyMap<string, number>, skip: ReadonlySet<number> = new Set()): Merges {
  const entries = Array.from(vocab, ([token, id]) => [id, Buffer.from(token)] as const).filter(([id]) => !skip.has(id))
  const ids = Int32Array.from(entries, ([id]) => id).sort()
  const strings = packByteStrings(entries, (ids.at(-1) ?? -1) + 1)
  const table = tableOf(strings, ids, ids.length)
  const { bytes, starts } = strings
  const merges: number[] = []
  for (const id of ids) {
    const end = starts[id + 1] as number
    let hash = hashStart
    for (let start = starts[id] as number, at = start + 1; at < end; at++) {
      hash = hashByte(hash, bytes[at - 1] as number)
      if (((bytes[at] as number) & 0xc0) === 0x80) continue // inside a character
      const left = findBytes(table, hash, bytes, start, at)
      if (left < 0) continue
      let rightHash = hashStart
      for (let i = at; i < end; i++) rightHash = hashByte(rightHash, bytes[i] as number)
      const right = findBytes(table, rightHash, bytes, at, end)
      if (right >= 0) merges.push(left, right, merges.length / 4, id)
    }
  }
  return Int32Array.from(merges)
}
