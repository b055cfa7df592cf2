import { describe, expect, test } from 'vitest'
import type { SamplingParams } from '../../src/engine/contract.js'
import {
  addon,
  at,
  bits,
  describeBackends,
  freshRandom,
  type Matrix,
  type Ops,
  poisoned,
  Random,
  type SampleRow,
} from './addon.js'

const random = freshRandom('sample')

interface Sampled {
  tokens: Int32Array
  logprobs: Float32Array
  ranks: Int32Array
  topTokens: Matrix<Int32Array>
  topLogprobs: Matrix
}

/** Samples from copies of the logits. numSampledIds: all by default. */
function sample(ops: Ops, logits: Matrix, sampleRows: SampleRow[], numSampledIds = logits.cols): Sampled {
  const tokens = new Int32Array(sampleRows.length).fill(-99)
  const logprobs = new Float32Array(sampleRows.length).fill(-99)
  const ranks = new Int32Array(sampleRows.length).fill(-99)
  const topTokens = { data: new Int32Array(sampleRows.length * 8).fill(-99), rows: sampleRows.length, cols: 8 }
  const topLogprobs = poisoned(sampleRows.length, 8)
  ops.sample(
    { ...logits, data: logits.data.slice() },
    new Float32Array(sampleRows.length),
    sampleRows,
    numSampledIds,
    tokens,
    logprobs,
    ranks,
    topTokens,
    topLogprobs,
  )
  return { tokens, logprobs, ranks, topTokens, topLogprobs }
}

function sampleRow(
  params: Partial<SamplingParams>,
  position = 0,
  counts?: Int32Array,
  forbidden?: Int32Array,
): SampleRow {
  return { params: { max_tokens: 1, ...params }, position, ...(counts && { counts }), ...(forbidden && { forbidden }) }
}

/** One token from one list of logits. */
function sampleOne(
  ops: Ops,
  logits: ArrayLike<number>,
  params: Partial<SamplingParams>,
  counts?: Int32Array,
  forbidden?: Int32Array,
): number {
  const matrix = { data: Float32Array.from(logits), rows: 1, cols: logits.length }
  return at(sample(ops, matrix, [sampleRow(params, 0, counts, forbidden)]).tokens, 0)
}

/** Many draws from the same logits, each with its own position. */
function draws(
  ops: Ops,
  logits: ArrayLike<number>,
  params: Partial<SamplingParams>,
  count: number,
  numSampledIds = logits.length,
): Int32Array {
  const one = Float32Array.from(logits)
  const data = new Float32Array(count * one.length)
  for (let i = 0; i < count; i++) data.set(one, i * one.length)
  const sampleRows = Array.from({ length: count }, (_, i) => sampleRow(params, i))
  return sample(ops, { data, rows: count, cols: one.length }, sampleRows, numSampledIds).tokens
}

function softmax(logits: ArrayLike<number>, temperature = 1): number[] {
  const values = Array.from(logits)
  const top = Math.max(...values)
  const weights = values.map((x) => Math.exp((x - top) / temperature))
  const total = weights.reduce((a, b) => a + b, 0)
  return weights.map((w) => w / total)
}

/** Pearson's statistic over the tokens with at least 5 expected draws, the others together, and its degrees of freedom. */
function chiSquare(tokens: Int32Array, probabilities: number[]): { statistic: number; degrees: number } {
  const seen = new Array<number>(probabilities.length).fill(0)
  for (const token of tokens) seen[token] = at(seen, token) + 1
  let statistic = 0
  let degrees = -1
  let restSeen = 0
  let restExpected = 0
  probabilities.forEach((p, i) => {
    const expected = p * tokens.length
    if (expected < 5) {
      restSeen += at(seen, i)
      restExpected += expected
    } else {
      statistic += (at(seen, i) - expected) ** 2 / expected
      degrees++
    }
  })
  if (restExpected >= 5) {
    statistic += (restSeen - restExpected) ** 2 / restExpected
    degrees++
  }
  return { statistic, degrees: Math.max(degrees, 1) }
}

/** Fails if the draws are less likely than about 1 in 100000 to come from these probabilities. */
function expectDistribution(tokens: Int32Array, probabilities: number[], what: string): void {
  for (const token of tokens) expect(at(probabilities, token), `${what}: token ${token}`).toBeGreaterThan(0)
  const { statistic, degrees } = chiSquare(tokens, probabilities)
  expect(statistic, `${what}: chi-square with ${degrees} degrees of freedom`).toBeLessThan(
    degrees + 4.5 * Math.sqrt(2 * degrees) + 12,
  )
}

/** The exact probabilities after temperature, top_k, top_p and min_p, by sorting. */
function truncated(logits: ArrayLike<number>, params: Partial<SamplingParams>): number[] {
  const p = softmax(logits, params.temperature ?? 1)
  let order = Array.from(p.keys()).sort((a, b) => at(logits, b) - at(logits, a) || a - b)
  if (params.top_k) order = order.slice(0, params.top_k)
  const total = order.reduce((sum, i) => sum + at(p, i), 0)
  if (params.top_p !== undefined && params.top_p < 1) {
    let sum = 0
    const kept: number[] = []
    for (const i of order) {
      kept.push(i)
      sum += at(p, i)
      if (sum >= params.top_p * total) break
    }
    order = kept
  }
  order = order.filter((i) => at(p, i) >= (params.min_p ?? 0) * at(p, at(order, 0)))
  const left = order.reduce((sum, i) => sum + at(p, i), 0)
  return p.map((value, i) => (order.includes(i) ? value / left : 0))
}

describeBackends('sample', (ops, { device }) => {
  // Thousands of draws take minutes in the emulator: there the CPU's tokens stand for the probabilities, below.
  const manyDraws = test.skipIf(device === 'cuda')

  test('temperature 0 takes the largest logit, the lowest id among equals', () => {
    for (const vocab of [1, 2, 15, 16, 17, 100, 5000]) {
      const logits = random.normals(vocab)
      expect(sampleOne(ops, logits, { temperature: 0 })).toBe(logits.indexOf(Math.max(...logits)))
    }
    const ties = new Float32Array(100).fill(-1)
    for (const id of [37, 38, 70, 99]) ties[id] = 2
    expect(sampleOne(ops, ties, { temperature: 0 })).toBe(37)
    expect(sampleOne(ops, new Float32Array(50), { temperature: 0 })).toBe(0)
    expect(sampleOne(ops, [-0, 0, 0], { temperature: 0 })).toBe(0)
  })

  test('top_k 1, top_p 0, a tiny top_p and min_p 1 are greedy', () => {
    for (let round = 0; round < 20; round++) {
      const logits = random.normals(500, 2)
      const greedy = sampleOne(ops, logits, { temperature: 0 })
      for (const params of [
        { top_k: 1 },
        { top_p: 0 },
        { top_p: 1e-9 },
        { min_p: 1 },
        { temperature: 1e-6 },
        { temperature: 1e-300 },
      ]) {
        expect(sampleOne(ops, logits, { seed: round, ...params }), JSON.stringify(params)).toBe(greedy)
      }
    }
    expect(new Set(draws(ops, new Float32Array(64), { top_k: 1 }, 20))).toEqual(new Set([0]))
    expect(new Set(draws(ops, new Float32Array(64), { top_p: 0 }, 20))).toEqual(new Set([0]))
  })

  manyDraws('draws with the exact probabilities', () => {
    const fixed = new Random(7) // the same draws in every run, so that chance cannot fail this test
    const flat = fixed.normals(40)
    const steep = fixed.normals(300, 3)
    const cases: [string, Float32Array, Partial<SamplingParams>][] = [
      ['plain', flat, { seed: 1 }],
      ['hot', flat, { seed: 2, temperature: 3 }],
      ['cold', flat, { seed: 3, temperature: 0.5 }],
      ['steep', steep, { seed: 4 }],
      ['top_k', flat, { seed: 5, top_k: 7 }],
      ['top_p', flat, { seed: 6, top_p: 0.6 }],
      ['min_p', flat, { seed: 7, min_p: 0.2 }],
      ['all together', steep, { seed: 8, temperature: 1.5, top_k: 30, top_p: 0.9, min_p: 0.02 }],
      ['top_k of equals', new Float32Array(40), { seed: 9, top_k: 10 }],
      ['top_p of equals', new Float32Array(40), { seed: 10, top_p: 0.49 }],
    ]
    for (const [name, logits, params] of cases) {
      expectDistribution(draws(ops, logits, params, 4000), truncated(logits, params), name)
    }
  })

  manyDraws('keeps exactly the tokens that sorting would keep', () => {
    for (let round = 0; round < 12; round++) {
      // Coarse logits have many ties.
      const logits = random.normals(30, 1).map((x) => Math.round(x * 2) / 2)
      const params: Partial<SamplingParams> = {
        seed: random.below(1e9),
        temperature: 0.5 + random.uniform(),
        top_k: random.below(2) * (1 + random.below(30)),
        top_p: random.below(2) ? 1 : 0.05 + 0.9 * random.uniform(),
      }
      const allowed = truncated(logits, params)
      const seen = new Set(draws(ops, logits, params, 600))
      for (const token of seen) expect(at(allowed, token), `${JSON.stringify(params)} ${logits}`).toBeGreaterThan(0)
      allowed.forEach((p, token) => {
        if (p > 0.05)
          expect(seen.has(token), `${JSON.stringify(params)}: token ${token} of probability ${p}`).toBe(true)
      })
    }
  })

  manyDraws('a large vocabulary is drawn from with the exact probabilities, whole and truncated', () => {
    const fixed = new Random(11)
    const logits = fixed.normals(5000, 2)
    for (const params of [{ seed: 1 }, { seed: 2, top_p: 0.8 }, { seed: 3, top_k: 100 }]) {
      expectDistribution(draws(ops, logits, params, 1500), truncated(logits, params), JSON.stringify(params))
    }
    // Where a bound spares looking at most of the ids; coarse logits have ties at it, and some ids no weight.
    const coarse = fixed.normals(9000, 2).map((x) => (x < -2 ? Number.NEGATIVE_INFINITY : Math.round(x * 4) / 4))
    for (const params of [
      { seed: 4, top_k: 7 },
      { seed: 5, top_k: 300, temperature: 3 },
      { seed: 6, top_p: 0.1, temperature: 0.3 },
    ]) {
      expectDistribution(draws(ops, coarse, params, 600), truncated(coarse, params), JSON.stringify(params))
    }
  })

  manyDraws('never chooses an id without a tokenizer entry, however probable', () => {
    const logits = random.normals(50)
    for (let i = 40; i < 50; i++) logits[i] = 30
    for (const params of [{}, { top_k: 5 }, { top_p: 0.5 }, { min_p: 0.1 }, { temperature: 0 }]) {
      for (const token of draws(ops, logits, params, 200, 40)) expect(token).toBeLessThan(40)
    }
  })

  test('log-probabilities are those of the raw softmax over all columns, whatever the temperature, bias and padding', () => {
    for (const vocab of [10, 16, 100, 3001]) {
      const logits = random.matrix(3, vocab, 3)
      const result = sample(
        ops,
        logits,
        [
          sampleRow({ num_logprobs: 8, temperature: 0.3 }),
          sampleRow({ num_logprobs: 0, temperature: 0, bias_ids: Int32Array.of(3), bias_values: Float32Array.of(100) }),
          sampleRow({ num_logprobs: 5, presence_penalty: 2, frequency_penalty: 1 }, 0, Int32Array.of(1, 2, 7, 1)),
        ],
        vocab - 2,
      )
      expect(at(result.tokens, 1)).toBe(3)
      for (let r = 0; r < 3; r++) {
        const values = Array.from(logits.data.subarray(r * vocab, (r + 1) * vocab))
        const logprobs = softmax(values).map(Math.log)
        expect(Math.abs(at(result.logprobs, r) - at(logprobs, at(result.tokens, r)))).toBeLessThan(4e-6)
        const order = Array.from(values.keys()).sort((a, b) => at(values, b) - at(values, a) || a - b)
        const k = [8, 0, 5][r] as number
        for (let i = 0; i < 8; i++) {
          if (i < k) {
            expect(at(result.topTokens.data, r * 8 + i)).toBe(at(order, i))
            expect(Math.abs(at(result.topLogprobs.data, r * 8 + i) - at(logprobs, at(order, i)))).toBeLessThan(4e-6)
          } else {
            expect(at(result.topTokens.data, r * 8 + i)).toBe(-99)
            expect(at(result.topLogprobs.data, r * 8 + i)).toBeNaN()
          }
        }
      }
    }
  })

  test('the most probable tokens come with the lower id first among equals', () => {
    const logits = new Float32Array(64)
    for (const id of [60, 5, 33]) logits[id] = 1
    const result = sample(ops, { data: logits, rows: 1, cols: 64 }, [sampleRow({ num_logprobs: 6, temperature: 0 })])
    expect(Array.from(result.topTokens.data.subarray(0, 6))).toEqual([5, 33, 60, 0, 1, 2])
  })

  test('without log-probabilities reports NaN', () => {
    const result = sample(ops, random.matrix(1, 20), [sampleRow({ num_logprobs: -1 })])
    expect(at(result.logprobs, 0)).toBeNaN()
    expect(at(result.topTokens.data, 0)).toBe(-99)
  })

  test('bias and penalties move the choice', () => {
    const logits = [1, 2, 3, 4, 5]
    const greedy = (params: Partial<SamplingParams>, counts?: Int32Array) =>
      sampleOne(ops, logits, { temperature: 0, ...params }, counts)
    expect(greedy({ bias_ids: Int32Array.of(1), bias_values: Float32Array.of(3.5) })).toBe(1)
    expect(greedy({ bias_ids: Int32Array.of(4, 3), bias_values: Float32Array.of(-100, -100) })).toBe(2)
    expect(greedy({ bias_ids: Int32Array.of(4000000), bias_values: Float32Array.of(100) })).toBe(4)
    expect(greedy({ presence_penalty: 1.5 }, Int32Array.of(4, 10))).toBe(3)
    expect(greedy({ frequency_penalty: 0.4 }, Int32Array.of(4, 2))).toBe(4)
    expect(greedy({ frequency_penalty: 0.4 }, Int32Array.of(4, 3))).toBe(3)
    expect(greedy({ presence_penalty: -2, frequency_penalty: -2 }, Int32Array.of(2, 1))).toBe(2)
    expect(greedy({}, Int32Array.of(4, 1000))).toBe(4)
  })

  test('repetition_penalty divides positive logits and multiplies negative ones, of the prompt too; then come the other penalties', () => {
    const greedy = (logits: number[], params: Partial<SamplingParams>, counts?: Int32Array) =>
      sampleOne(ops, logits, { temperature: 0, ...params }, counts)
    expect(greedy([1, 2, 3, 4, 5], { repetition_penalty: 2 }, Int32Array.of(4, 0))).toBe(3) // 5 / 2
    expect(greedy([1, 2, 3, 4, 5], { repetition_penalty: 1.2 }, Int32Array.of(4, 3))).toBe(4) // 5 / 1.2
    expect(greedy([-1, -2, -3], { repetition_penalty: 2.5 }, Int32Array.of(0, 1))).toBe(1) // -1 * 2.5
    expect(greedy([-1, -2, -3], { repetition_penalty: 0.1 }, Int32Array.of(2, 1))).toBe(2) // -3 * 0.1
    // A token that is only in the prompt has no presence or frequency penalty.
    expect(greedy([1, 2], { presence_penalty: 2, frequency_penalty: 2 }, Int32Array.of(1, 0))).toBe(1)
    // Bias first: (2 + 4) / 2 = 3; penalties last: 6 / 2 - 0.5 = 2.5, and not (6 - 0.5) / 2 = 2.75.
    const both: Partial<SamplingParams> = {
      repetition_penalty: 2,
      bias_ids: Int32Array.of(1),
      bias_values: Float32Array.of(4),
    }
    expect(greedy([2.9, 2], both, Int32Array.of(1, 1))).toBe(1)
    expect(greedy([3.1, 2], both, Int32Array.of(1, 1))).toBe(0)
    expect(greedy([2.6, 2], { ...both, presence_penalty: 0.5 }, Int32Array.of(1, 1))).toBe(0)
    expect(greedy([3e38, 3.2e38], { repetition_penalty: 0.5 }, Int32Array.of(0, 0, 1, 0))).toBe(0) // both at the largest float32
  })

  test('a plain reference of all the adjustments chooses the same tokens', () => {
    for (let round = 0; round < 40; round++) {
      const vocab = 5 + random.below(200)
      const logits = random.normals(vocab, 3)
      const some = (count: number) => Int32Array.from({ length: count }, () => random.below(vocab))
      const counts = new Map(Array.from(some(random.below(30)), (id) => [id, random.below(4)]))
      const forbidden = some(random.below(vocab >> 1))
      const params: Partial<SamplingParams> = {
        temperature: 0,
        num_logprobs: 0,
        presence_penalty: random.below(2) * 1.5,
        frequency_penalty: random.below(2) * 0.75,
        repetition_penalty: [1, 1.3, 0.8][random.below(3)] as number,
        bias_ids: some(3),
        bias_values: random.normals(3, 2),
        allowed_token_ids: random.below(2) ? new Int32Array() : some(1 + random.below(vocab)),
      }
      const adjusted = Array.from(logits)
      params.bias_ids?.forEach((id, i) => {
        adjusted[id] = Math.fround(at(adjusted, id) + at(params.bias_values ?? [], i))
      })
      const penalty = params.repetition_penalty ?? 1
      if (penalty !== 1 || params.presence_penalty || params.frequency_penalty) {
        for (const [id, count] of counts) {
          let logit = at(adjusted, id)
          logit = logit > 0 ? logit / penalty : logit * penalty
          if (count > 0) logit -= (params.presence_penalty ?? 0) + (params.frequency_penalty ?? 0) * count
          adjusted[id] = logit
        }
      }
      const allowed = new Set(params.allowed_token_ids)
      const may = (id: number) => (allowed.size === 0 || allowed.has(id)) && !forbidden.includes(id)
      const best = Array.from(adjusted.keys())
        .filter(may)
        .sort((a, b) => at(adjusted, b) - at(adjusted, a))
      const row = sampleRow(params, 0, Int32Array.from([...counts].flat()), forbidden)
      const result = sample(ops, { data: logits, rows: 1, cols: vocab }, [row])
      expect(at(result.tokens, 0), JSON.stringify(params)).toBe(best[0] ?? -1)
      if (best[0] === undefined) continue
      // What is reported is the raw softmax still, and the rank among the raw logits.
      expect(Math.abs(at(result.logprobs, 0) - Math.log(at(softmax(logits), best[0])))).toBeLessThan(4e-6)
      expect(at(result.ranks, 0)).toBe(logits.filter((logit) => logit >= at(logits, best[0] ?? 0)).length)
    }
  })

  manyDraws('only allowed tokens are drawn, never forbidden ones, however the rest is truncated', () => {
    const logits = random.normals(100)
    const allowed_token_ids = Int32Array.of(3, 70, 71, 72, 99, 99)
    for (const params of [{}, { top_k: 3 }, { top_p: 0.8 }, { min_p: 0.05 }, { temperature: 0 }, { temperature: 5 }]) {
      const row = (i: number) => sampleRow({ ...params, allowed_token_ids }, i, undefined, Int32Array.of(70))
      const one = Float32Array.from(logits)
      const data = new Float32Array(200 * one.length)
      for (let i = 0; i < 200; i++) data.set(one, i * one.length)
      const { tokens } = sample(
        ops,
        { data, rows: 200, cols: one.length },
        Array.from({ length: 200 }, (_, i) => row(i)),
      )
      for (const token of tokens) expect([3, 71, 72, 99]).toContain(token)
    }
    const fixed = new Random(5).normals(60)
    const few = Int32Array.of(1, 5, 8, 13, 40)
    const expected = softmax(fixed).map((p, id) => (few.includes(id) ? p : 0))
    const total = expected.reduce((sum, p) => sum + p, 0)
    expectDistribution(
      draws(ops, fixed, { seed: 1, allowed_token_ids: few }, 3000),
      expected.map((p) => p / total),
      'allowed_token_ids',
    )
    expect(sampleOne(ops, logits, { allowed_token_ids: Int32Array.of(70) }, undefined, Int32Array.of(70))).toBe(-1)
  })

  test('logprob_token_ids are reported in their order, with the bits that the top list has', () => {
    const logits = random.matrix(1, 300, 3)
    const ids = Int32Array.of(299, 0, 17, 17)
    const asked = sample(ops, logits, [sampleRow({ logprob_token_ids: ids, temperature: 0, num_logprobs: -1 })])
    const top = sample(ops, logits, [sampleRow({ num_logprobs: 8, temperature: 0 })])
    expect(asked.topTokens.data.slice(0, 4)).toEqual(ids)
    const best = at(top.topTokens.data, 0)
    expect(bits(asked.logprobs)).toEqual(bits(top.topLogprobs.data.slice(0, 1)))
    expect(bits(top.logprobs)).toEqual(bits(top.topLogprobs.data.slice(0, 1)))
    const again = sample(ops, logits, [sampleRow({ logprob_token_ids: Int32Array.of(best), temperature: 0 })])
    expect(bits(again.topLogprobs.data.slice(0, 1))).toEqual(bits(top.logprobs))
    ids.forEach((id, i) => {
      expect(Math.abs(at(asked.topLogprobs.data, i) - Math.log(at(softmax(logits.data), id)))).toBeLessThan(4e-6)
    })
  })

  test('score tells of given tokens what sample reports of the ones it chose, to the bit', () => {
    for (const vocab of [5, 16, 300, 3001]) {
      const logits = random.matrix(12, vocab, 3)
      logits.data[3] = Number.NaN
      const numTops = Array.from({ length: 12 }, (_, i) => Math.min(i % 5, vocab))
      const sampled = sample(
        ops,
        logits,
        numTops.map((num_logprobs, i) => sampleRow({ num_logprobs, seed: i, temperature: 3 })),
      )
      const rows = numTops.map((num_top, i) => ({ token: at(sampled.tokens, i), num_top }))
      const logprobs = new Float32Array(12)
      const ranks = new Int32Array(12)
      const topTokens = { data: new Int32Array(12 * 8).fill(-99), rows: 12, cols: 8 }
      const topLogprobs = poisoned(12, 8)
      ops.score({ ...logits, data: logits.data.slice() }, rows, logprobs, ranks, topTokens, topLogprobs)
      expect(bits(logprobs)).toEqual(bits(sampled.logprobs))
      expect(ranks).toEqual(sampled.ranks)
      expect(topTokens).toEqual(sampled.topTokens)
      expect(bits(topLogprobs.data)).toEqual(bits(sampled.topLogprobs.data))
    }
  })

  test('NaN counts as impossible, +infinity as the largest, and nothing possible gives token -1', () => {
    const { NaN: nan, POSITIVE_INFINITY: inf } = Number
    expect(sampleOne(ops, [nan, 1, nan, 2], { temperature: 0 })).toBe(3)
    expect(sampleOne(ops, [nan, inf, nan, 2], { temperature: 0 })).toBe(1)
    for (const params of [{}, { top_k: 2 }, { top_p: 0.9 }, { min_p: 0.1 }, { temperature: 100 }]) {
      for (const token of draws(ops, [nan, 1, nan, 2, -inf], params, 50)) expect([1, 3]).toContain(token)
      expect(sampleOne(ops, [0, inf, 3], params)).toBe(1)
      expect(sampleOne(ops, [nan, nan, nan], params)).toBe(-1)
      expect(sampleOne(ops, [-inf, -inf], { temperature: 0, ...params })).toBe(-1)
    }
    const result = sample(ops, { data: Float32Array.of(nan, 1, 2, -inf), rows: 1, cols: 4 }, [
      sampleRow({ num_logprobs: 4, temperature: 0 }),
    ])
    expect(at(result.logprobs, 0)).toBeCloseTo(-Math.log(1 + Math.exp(-1)), 5)
    expect(Array.from(result.topTokens.data.subarray(0, 4))).toEqual([2, 1, 0, 3])
  })

  test('a row draws the same token alone and among others; seed, choice and position each change the draws', () => {
    const vocab = 1000
    const logits = random.matrix(24, vocab)
    const sampleRows = Array.from({ length: 24 }, (_, i) =>
      sampleRow({ seed: random.below(1e9), choice: i % 3, num_logprobs: i % 5 }, i),
    )
    const together = sample(ops, logits, sampleRows)
    sampleRows.forEach((entry, r) => {
      const alone = sample(ops, { data: logits.data.subarray(r * vocab, (r + 1) * vocab), rows: 1, cols: vocab }, [
        entry,
      ])
      expect(at(alone.tokens, 0)).toBe(at(together.tokens, r))
      expect(bits(alone.logprobs)).toEqual(bits(together.logprobs.slice(r, r + 1)))
    })
    const flat: Matrix = { data: new Float32Array(60 * vocab), rows: 60, cols: vocab }
    const varied = (params: (i: number) => SampleRow) =>
      new Set(
        sample(
          ops,
          flat,
          Array.from({ length: 60 }, (_, i) => params(i)),
        ).tokens,
      ).size
    expect(varied((i) => sampleRow({ seed: i }))).toBeGreaterThan(45)
    expect(varied((i) => sampleRow({ choice: i }))).toBeGreaterThan(45)
    expect(varied((i) => sampleRow({}, i))).toBeGreaterThan(45)
    expect(varied(() => sampleRow({}))).toBe(1)
  })
})

describe('sample', () => {
  test('draws the same tokens on every instruction set that this machine has', () => {
    const logits = new Random(3).matrix(200, 700, 2)
    const sampleRows = Array.from({ length: 200 }, (_, i) => sampleRow({ seed: 5, top_p: i % 2 ? 1 : 0.9 }, i))
    const isas = (['baseline', 'neon', 'avx2', 'avx512', 'amx'] as const).filter((isa) => addon.hasIsa(isa))
    const [first, ...others] = isas.map((isa) => sample(addon.testOps(isa, 1), logits, sampleRows).tokens)
    for (const other of others) expect(other).toEqual(first)
  })

  test('draws on CUDA the tokens of the CPU, however they are truncated, and reports their log-probabilities', () => {
    const random = freshRandom('sample on two devices')
    const rows = 24
    const vocab = 700
    const logits = random.matrix(rows, vocab, 2)
    // Coarse logits have many ties.
    for (let i = 0; i < (rows * vocab) / 2; i++) logits.data[i] = Math.round(at(logits.data, i) * 2) / 2
    const ids = (count: number) => Int32Array.from({ length: count }, () => random.below(vocab))
    const sampleRows = Array.from({ length: rows }, (_, i) =>
      sampleRow(
        {
          seed: random.below(1e9),
          temperature: 0.5 + random.uniform(),
          ...(i % 2 && { top_p: 0.05 + 0.9 * random.uniform() }),
          ...(i % 3 === 0 && { top_k: 1 + random.below(vocab) }),
          ...(i % 5 === 0 && { min_p: 0.3 * random.uniform() }),
          ...(i % 4 === 1 && { allowed_token_ids: ids(40) }),
          ...(i % 4 === 2 && { bias_ids: ids(20), bias_values: random.normals(20), repetition_penalty: 1.3 }),
          num_logprobs: i % 7,
        },
        i,
        i % 4 === 2 ? Int32Array.of(3, 0, 5, 2, 699, 1) : undefined,
        i % 6 === 0 ? ids(30) : undefined,
      ),
    )
    const onCpu = sample(addon.testOps('baseline', 1), logits, sampleRows, 690)
    const onCuda = sample(addon.testCudaOps(true), logits, sampleRows, 690)
    expect(onCuda.tokens).toEqual(onCpu.tokens)
    expect(onCuda.ranks).toEqual(onCpu.ranks)
    expect(onCuda.topTokens.data).toEqual(onCpu.topTokens.data)
    onCuda.logprobs.forEach((logprob, i) => {
      expect(Math.abs(logprob - at(onCpu.logprobs, i))).toBeLessThan(1e-5)
    })
  })
})
