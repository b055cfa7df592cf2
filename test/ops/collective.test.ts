// What ranks do together, in shared memory: sums, rows put together, and what happens to the others when one fails or stops.

import { createRequire } from 'node:module'
import { describe, expect, test } from 'vitest'
import type { Isa } from '../../src/engine/contract.js'
import { at, bits, freshRandom, type Matrix, poisoned, row, rows, treeSum } from './addon.js'

interface Ranks {
  allReduce(outs: Matrix[], parts: Matrix[], epilogue: 'store' | 'accumulate'): void
  gather(outs: Matrix[], parts: Matrix[], firstColumns: number[], firstRows: number[]): void
  /** rank fails or halts, the others wait for it; what the engine is told, then what each rank was */
  without(rank: number, halts: boolean): string[]
  /** rank comes late; milliseconds of a processor that each rank has used */
  late(rank: number, ms: number): number[]
}
const { testRanks } = createRequire(import.meta.url)('../../build/Release/parley.node') as {
  testRanks(isa: Isa, numRanks: number, stoppedAfterMs: number): Ranks
}

const random = freshRandom('collective')
const patient = 60_000
const each = <T>(count: number, make: (rank: number) => T) => Array.from({ length: count }, (_, rank) => make(rank))

describe.each([1, 2, 3, 5])('%i ranks', (count) => {
  const ranks = testRanks('auto', count, patient)

  test.each(['store', 'accumulate'] as const)('all_reduce gives all the sum, the same bits, and %s', (epilogue) => {
    // Again and again: a rank that runs ahead must not meet what another still reads.
    for (let round = 0; round < 200; round++) {
      const [t, n] = [1 + random.below(4), 1 + random.below(70)]
      const parts = each(count, () => random.matrix(t, n))
      const before = random.matrix(t, n)
      const outs = each(count, () => (epilogue === 'store' ? poisoned(t, n) : { ...before, data: before.data.slice() }))
      const expected = before.data.map((value, i) => {
        const sum = treeSum(parts.map(({ data }) => at(data, i)))
        return epilogue === 'store' ? sum : value + sum
      })
      ranks.allReduce(outs, parts, epilogue)
      for (const out of outs) expect(bits(out.data)).toEqual(bits(expected))
    }
  })

  test('gather puts columns together, to each rank the rows that it wants', () => {
    for (let round = 0; round < 50; round++) {
      const total = 1 + random.below(9)
      const sizes = each(count, () => 1 + random.below(40))
      const starts = sizes.map((_, rank) => sizes.slice(0, rank).reduce((sum, size) => sum + size, 0))
      const width = (starts.at(-1) as number) + (sizes.at(-1) as number)
      const all: Matrix = random.matrix(total, width)
      const parts = sizes.map((size, rank) => {
        const part = poisoned(total, size)
        for (let t = 0; t < total; t++) {
          const start = starts[rank] as number
          row(part, t).set(row(all, t).subarray(start, start + size))
        }
        return part
      })
      const firsts = each(count, () => random.below(total))
      const outs = firsts.map((first) => poisoned(random.below(total - first + 1), width))
      ranks.gather(outs, parts, starts, firsts)
      outs.forEach((out, rank) => {
        const first = firsts[rank] as number
        expect(bits(out.data)).toEqual(bits(rows(all, first, first + out.rows).data))
      })
    }
  })
})

test('when a rank fails, all fail with its reason, and the next task runs', () => {
  const ranks = testRanks('auto', 3, patient)
  for (let round = 0; round < 20; round++) {
    for (const failing of [0, 2]) {
      const why = `rank ${failing} fails`
      expect(ranks.without(failing, false)).toEqual([why, ...each(3, (rank) => (rank === failing ? '' : why))])
      const outs = each(3, () => poisoned(1, 1))
      ranks.allReduce(
        outs,
        each(3, (rank) => ({ data: Float32Array.of(rank + 1), rows: 1, cols: 1 })),
        'store',
      )
      expect(outs.map(({ data }) => data[0])).toEqual([6, 6, 6])
    }
  }
})

test('a rank that stops is noticed, the others are told, and there is no next task', () => {
  const ranks = testRanks('auto', 3, 80)
  const why = 'rank 1 of 3 has stopped: it has not moved for 80 ms while the others waited for it'
  expect(ranks.without(1, true)).toEqual([why, why, '', why])
  expect(() => ranks.late(0, 0)).toThrow(why)
})

test('a rank that waits is not one that has stopped, and uses no processor', () => {
  const used = testRanks('auto', 3, patient).late(1, 400)
  expect(used).toHaveLength(3)
  // A spinning rank would use all of the 400 ms.
  for (const ms of used) expect(ms).toBeLessThan(100)
})
