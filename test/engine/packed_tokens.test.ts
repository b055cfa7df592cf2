// The queue of tokens that nobody has read yet.

import { expect, test } from 'vitest'
import { FinishReasonValues } from '../../src/engine/contract.js'
import type { TokenEvent } from '../../src/engine/engine.js'
import { PackedTokens } from '../../src/engine/packed_tokens.js'
import { seededRandom } from './random_model.js'

/** A token event as native code packs it, between words that are none of it. */
function packed({ token, logprob, rank, top, finish }: TokenEvent): [words: Int32Array, start: number, end: number] {
  const words = new Int32Array(3 + 4 + 2 * top.length + 2).fill(-7)
  const floats = new Float32Array(words.buffer)
  words[3] = FinishReasonValues.indexOf(finish)
  words[4] = token
  floats[5] = logprob
  words[6] = rank
  for (const [i, other] of top.entries()) {
    words[7 + 2 * i] = other.token
    floats[8 + 2 * i] = other.logprob
  }
  return [words, 3, words.length - 2]
}

test('what goes in comes out, in order, whatever the reader does', () => {
  const random = seededRandom(5)
  const below = (limit: number) => Math.floor(random() * limit)
  const waiting: TokenEvent[] = []
  const tokens = new PackedTokens()
  const taken: [TokenEvent, TokenEvent | undefined][] = []
  let most = 0
  for (let round = 0; round < 20_000; round++) {
    // The reader is behind, then catches up, again and again.
    if (below(100) < (round % 4000 < 2000 ? 60 : 30)) {
      const top = Array.from({ length: below(4) === 0 ? below(21) : 0 }, () => ({
        token: below(5e4),
        logprob: -below(9),
      }))
      const logprob = top.length === 0 ? Number.NaN : -below(9) / 8
      const event: TokenEvent = { token: below(5e4), logprob, rank: below(3), top, finish: 'none' }
      waiting.push(event)
      tokens.push(...packed(event))
    } else if (waiting.length > 0) {
      taken.push([tokens.shift(), waiting.shift()])
    }
    if (tokens.empty !== (waiting.length === 0)) throw new Error(`empty is ${tokens.empty}`)
    most = Math.max(most, waiting.length)
  }
  expect(most).toBeGreaterThan(200)
  while (waiting.length > 0) taken.push([tokens.shift(), waiting.shift()])
  expect(tokens.empty).toBe(true)
  expect(taken.map(([token]) => token)).toEqual(taken.map(([, wanted]) => wanted))
})
