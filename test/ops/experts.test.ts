import { expect, test } from 'vitest'
import {
  addon,
  at,
  bits,
  describeBackends,
  dtypes,
  type Expert,
  epsilon,
  freshRandom,
  type Matrix,
  poisoned,
  type Random,
  roundAll,
  row,
  rows,
} from './addon.js'

const random = freshRandom('experts')

function randomExpert(from: Random, width: number, size: number, dtype: (typeof dtypes)[number]): Expert {
  const weight = (rowCount: number, cols: number) => ({
    dtype,
    rows: rowCount,
    cols,
    data: roundAll(from.normals(rowCount * cols, cols ** -0.5), dtype),
  })
  return { gate_up: weight(2 * size, width), down: weight(width, size) }
}

/** Experts of each of `tokens` tokens, all different, and shares of them. */
function randomRouting(tokens: number, num_experts: number, chosen: number) {
  const experts = Int32Array.from(
    Array.from({ length: tokens }, () => [...random.permutation(num_experts).subarray(0, chosen)]).flat(),
  )
  return { experts: { data: experts, rows: tokens, cols: chosen }, shares: random.matrix(tokens, chosen) }
}

function routed(logits: Matrix, chosen: number): { experts: Matrix<Int32Array>; shares: Matrix } {
  return {
    experts: { data: new Int32Array(logits.rows * chosen).fill(-1), rows: logits.rows, cols: chosen },
    shares: poisoned(logits.rows, chosen),
  }
}

/** What expert `e` makes of row `t` of x, in float64, and the sum of the magnitudes that its roundings are relative to. */
function expertOutput(x: Matrix, t: number, { gate_up, down }: Expert): { y: number[]; size: number } {
  const product = (weight: Expert['down'], o: number, input: ArrayLike<number>) => {
    let [sum, size] = [0, 0]
    for (let k = 0; k < weight.cols; k++) {
      const term = at(weight.data, o * weight.cols + k) * at(input, k)
      sum += term
      size += Math.abs(term)
    }
    return { sum, size }
  }
  const inner = Array.from({ length: gate_up.rows }, (_, o) => product(gate_up, o, row(x, t)))
  const hidden = Array.from({ length: down.cols }, (_, i) => {
    const gate = inner[i]?.sum ?? Number.NaN
    return (gate / (1 + Math.exp(-gate))) * (inner[down.cols + i]?.sum ?? Number.NaN)
  })
  const scale = Math.max(...inner.map(({ size }) => size)) ** 2
  const outer = Array.from({ length: down.rows }, (_, o) => product(down, o, hidden))
  return { y: outer.map(({ sum }) => sum), size: Math.max(...outer.map(({ size }) => size)) + scale }
}

describeBackends('route and mix_experts', (ops, { inputs, rounding }) => {
  test.each([
    [1, 1],
    [2, 2],
    [5, 1],
    [8, 2],
    [33, 4],
    [128, 128],
    [1024, 9],
  ])('the shares of the chosen of %i experts, %i a token, agree with float64', (num_experts, chosen) => {
    const logits = random.matrix(7, num_experts, 3)
    for (const normalise of [false, true]) {
      const { experts, shares } = routed(logits, chosen)
      ops.route(experts, shares, logits, normalise)
      for (let t = 0; t < logits.rows; t++) {
        const of = row(logits, t)
        const order = Array.from(of.keys()).sort((a, b) => at(of, b) - at(of, a) || a - b)
        const best = order.slice(0, chosen)
        expect([...experts.data.subarray(t * chosen, (t + 1) * chosen)]).toEqual(best)
        const weights = Array.from(of, (logit) => Math.exp(logit - at(of, at(order, 0))))
        const among = (normalise ? best : order).reduce((sum, e) => sum + at(weights, e), 0)
        best.forEach((e, j) => {
          const share = at(weights, e) / among
          expect(Math.abs(at(row(shares, t), j) - share)).toBeLessThan(40 * epsilon * share + 1e-30)
        })
      }
    }
  })

  test('equal logits go to the lower indices, and far apart ones stay finite', () => {
    const logits = { data: Float32Array.of(1, 2, 2, 1, 2, -3e38, 3e38, -3e38, 3e38, 0), rows: 2, cols: 5 }
    const { experts, shares } = routed(logits, 3)
    ops.route(experts, shares, logits, true)
    expect([...experts.data]).toEqual([1, 2, 4, 1, 3, 4])
    expect([...shares.data.subarray(3)]).toEqual([0.5, 0.5, 0])
  })

  test('logits that are no numbers choose experts that exist', () => {
    const logits = { data: new Float32Array(12).fill(Number.NaN), rows: 2, cols: 6 }
    logits.data.set([1, Number.NaN, 3], 6)
    const { experts, shares } = routed(logits, 4)
    ops.route(experts, shares, logits, false)
    for (const t of [0, 1]) {
      const chosen = [...experts.data.subarray(4 * t, 4 * t + 4)]
      expect(new Set(chosen).size).toBe(4)
      expect(chosen.every((e) => e >= 0 && e < 6)).toBe(true)
      expect(row(shares, t).every(Number.isNaN)).toBe(true)
    }
  })

  for (const dtype of dtypes) {
    test(`agrees with float64 on odd shapes, ${dtype} weights`, () => {
      for (const [num_experts, chosen, width, size] of [
        [1, 1, 1, 1],
        [3, 1, 33, 7],
        [4, 2, 20, 40],
        [9, 4, 34, 16],
      ] as const) {
        const weights = Array.from({ length: num_experts }, () => randomExpert(random, width, size, dtype))
        for (const tokens of [1, 4, 13]) {
          const x = random.matrix(tokens, width)
          roundAll(x.data, inputs(dtype))
          const { experts, shares } = randomRouting(tokens, num_experts, chosen)
          const out = random.matrix(tokens, width)
          const before = out.data.slice()
          ops.mix_experts(out, x, experts, shares, weights, 'silu')
          let worst = 0
          for (let t = 0; t < tokens; t++) {
            const expected = Array.from(before.subarray(t * width, (t + 1) * width))
            let bound = Math.max(...expected.map(Math.abs))
            for (let j = 0; j < chosen; j++) {
              const { y, size: magnitude } = expertOutput(x, t, weights[at(experts.data, t * chosen + j)] as Expert)
              const share = at(row(shares, t), j)
              y.forEach((value, i) => {
                expected[i] = at(expected, i) + share * value
              })
              bound += Math.abs(share) * magnitude
            }
            expected.forEach((value, i) => {
              const error =
                Math.abs(at(row(out, t), i) - value) / (bound * ((width + size + 8) * epsilon + rounding(dtype)))
              if (!(error <= worst)) worst = error // NaN comes through
            })
          }
          expect(worst, `${num_experts} experts of ${width} x ${size}, ${tokens} tokens`).toBeLessThan(2)
        }
      }
    })
  }

  test('gives every row the bits that it has alone, whichever rows go to the same experts', () => {
    const weights = Array.from({ length: 6 }, () => randomExpert(random, 48, 20, 'float16'))
    for (const tokens of [2, 7, 12, 40]) {
      const x = random.matrix(tokens, 48)
      const { experts, shares } = randomRouting(tokens, 6, 3)
      const start = random.matrix(tokens, 48)
      const together = { ...start, data: start.data.slice() }
      ops.mix_experts(together, x, experts, shares, weights, 'gelu')
      for (let t = 0; t < tokens; t++) {
        const alone = rows(start, t, t + 1)
        ops.mix_experts(
          alone,
          rows(x, t, t + 1),
          { data: experts.data.subarray(3 * t, 3 * t + 3), rows: 1, cols: 3 },
          rows(shares, t, t + 1),
          weights,
          'gelu',
        )
        expect(bits(row(together, t)), `row ${t} of ${tokens}`).toEqual(bits(alone.data))
      }
    }
  })

  test('an expert that no row is routed to is not computed', () => {
    const weights = Array.from({ length: 3 }, () => randomExpert(random, 16, 16, 'float32'))
    weights[1]?.gate_up.data.fill(Number.NaN)
    const [x, out] = [random.matrix(2, 16), random.matrix(2, 16)]
    const experts = { data: Int32Array.of(0, 2, 2, 0), rows: 2, cols: 2 }
    ops.mix_experts(out, x, experts, random.matrix(2, 2), weights, 'silu')
    expect(out.data.every(Number.isFinite)).toBe(true)
  })
})

for (const isa of ['baseline', 'neon', 'avx2', 'avx512', 'amx'] as const) {
  test.skipIf(!addon.hasIsa(isa))(`mix_experts gives the same bits with 1, 2, 3 and 7 threads, ${isa}`, () => {
    const weights = Array.from({ length: 8 }, () => randomExpert(random, 96, 64, 'bfloat16'))
    for (const tokens of [1, 50]) {
      const x = random.matrix(tokens, 96)
      const { experts, shares } = randomRouting(tokens, 8, 2)
      const [first, ...others] = [1, 2, 3, 7].map((threads) => {
        const out = { data: new Float32Array(tokens * 96), rows: tokens, cols: 96 }
        addon.testOps(isa, threads).mix_experts(out, x, experts, shares, weights, 'silu')
        return bits(out.data)
      })
      for (const other of others) expect(other).toEqual(first)
    }
  })
}

test('a wrong call throws and names the argument', () => {
  const ops = addon.testOps('baseline', 1)
  const x = random.matrix(1, 4)
  const weights = [randomExpert(random, 4, 6, 'float32')]
  const one = { data: Int32Array.of(0), rows: 1, cols: 1 }
  const share = random.matrix(1, 1)
  const mix = (experts: Matrix<Int32Array>, list: Expert[]) =>
    ops.mix_experts(poisoned(1, 4), x, experts, share, list, 'silu')
  expect(() => mix({ ...one, data: Int32Array.of(1) }, weights)).toThrow('experts: 1 is not in 0..0')
  expect(() => mix(one, [randomExpert(random, 5, 6, 'float32')])).toThrow('columns of gate_up and x')
  expect(() => ops.route({ ...one, cols: 1 }, poisoned(1, 2), x, false)).toThrow('columns of experts and shares')
})
