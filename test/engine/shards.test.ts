// How a model is shared out between ranks.

import { createRequire } from 'node:module'
import { describe, expect, test } from 'vitest'
import type { ModelSpec } from '../../src/engine/contract.js'
import { tinySpec } from './random_model.js'

type Range = [first: number, count: number]
type Part = 'heads' | 'kv_heads' | 'mlp' | 'expert' | 'vocab'
const { testShards } = createRequire(import.meta.url)('../../build/Release/parley.node') as {
  testShards(spec: ModelSpec, numRanks: number): Record<Part, Range>[]
}

const specOf = (num_heads: number, num_kv_heads: number, changed: Partial<ModelSpec> = {}) => ({
  ...tinySpec,
  num_heads,
  num_kv_heads,
  ...changed,
})
const shards = (spec: ModelSpec, numRanks: number, part: Part) => testShards(spec, numRanks).map((shard) => shard[part])

describe.each([
  [1, 1, 1],
  [7, 7, 3],
  [71, 71, 4],
  [12, 4, 2],
  [12, 4, 3],
  [12, 4, 5],
  [15, 5, 4],
  [7, 1, 3],
  [6, 2, 6],
  [64, 8, 16],
  [10, 5, 8],
])('%i heads, %i of keys and values, %i ranks', (heads, kvHeads, ranks) => {
  const spec = specOf(heads, kvHeads)

  test('every query has one rank, which has its keys and values', () => {
    const owners = new Map<number, number>()
    testShards(spec, ranks).forEach((shard, rank) => {
      const [first, count] = shard.heads
      const [firstKv, numKv] = shard.kv_heads
      expect(count).toBeGreaterThan(0)
      expect(count % numKv).toBe(0)
      for (let i = 0; i < count; i++) {
        expect(owners.has(first + i)).toBe(false)
        owners.set(first + i, rank)
        // As ops read it (HeadLayout), and as the model means it.
        expect(firstKv + Math.floor(i / (count / numKv))).toBe(Math.floor((first + i) / (heads / kvHeads)))
      }
    })
    expect(owners.size).toBe(heads)
  })
})

test.each<[Part, number, number, Range[]]>([
  [
    'mlp',
    128,
    3,
    [
      [0, 42],
      [42, 43],
      [85, 43],
    ],
  ],
  [
    'mlp',
    11008,
    2,
    [
      [0, 5504],
      [5504, 5504],
    ],
  ],
  [
    'mlp',
    11008,
    4,
    [
      [0, 2752],
      [2752, 2752],
      [5504, 2752],
      [8256, 2752],
    ],
  ],
  [
    'vocab',
    97,
    2,
    [
      [0, 48],
      [48, 49],
    ],
  ],
  [
    'vocab',
    50257,
    2,
    [
      [0, 25120],
      [25120, 25137],
    ],
  ],
  [
    'expert',
    768,
    3,
    [
      [0, 256],
      [256, 256],
      [512, 256],
    ],
  ],
])('%s: %i between %i ranks, in whole panels where there are many', (part, size, ranks, expected) => {
  const spec = specOf(4, 4, {
    num_experts: 4,
    num_experts_per_tok: 2,
    intermediate_size: part === 'mlp' ? size : 128,
    moe_intermediate_size: part === 'expert' ? size : 128,
    vocab_size: part === 'vocab' ? size : 97,
    num_sampled_ids: 97,
  })
  expect(shards(spec, ranks, part)).toEqual(expected)
})

test('more ranks than there are parts are refused', () => {
  expect(() => testShards(specOf(5, 5), 6)).toThrow(
    "tensor_parallel_size: expected at most 5, the model's number of heads, got 6",
  )
  expect(() => testShards(specOf(8, 1, { intermediate_size: 7 }), 8)).toThrow(
    "tensor_parallel_size: expected at most 7, the model's intermediate_size, got 8",
  )
  expect(() => testShards(specOf(4, 4), 0)).toThrow('tensor_parallel_size: expected at least 1, got 0')
})
