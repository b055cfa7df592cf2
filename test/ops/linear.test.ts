import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  addon,
  at,
  bits,
  describeBackends,
  dtypes,
  type Epilogue,
  epsilon,
  freshRandom,
  type Matrix,
  type Ops,
  type Product,
  poisoned,
  type Random,
  roundAll,
  row,
  rows,
  type Weight,
} from './addon.js'

const random = freshRandom('linear')

function randomWeight(from: Random, rowCount: number, cols: number, dtype: Weight['dtype']): Weight {
  return { dtype, rows: rowCount, cols, data: roundAll(from.normals(rowCount * cols), dtype) }
}

/** A pass of one product. */
function linear(ops: Ops, out: Matrix, x: Matrix, weight: Weight, bias: Float32Array | null, epilogue: Epilogue): void {
  ops.linear([{ out, x, weight, bias, epilogue }])
}

/**
 * A pass as parallel branches have it, of random widths: one input for two products, two inputs, two or three products that add to one
 * output, the first of which stores or adds. All lie in strided matrices.
 */
function randomPass(tokens: number, dtype: Weight['dtype'], widest: number): Product[] {
  const width = () => 1 + random.below(widest)
  const strided = (cols: number): Matrix => {
    const stride = cols + random.below(3)
    return { data: random.normals(tokens * stride), rows: tokens, cols, stride }
  }
  const product = (out: Matrix, x: Matrix, epilogue: Epilogue): Product => ({
    out,
    x,
    weight: randomWeight(random, out.cols, x.cols, dtype),
    bias: random.below(2) ? random.normals(out.cols) : null,
    epilogue,
  })
  const x = strided(width())
  const sum = strided(width())
  const first = product(sum, strided(width()), random.below(2) ? 'store' : 'accumulate')
  const second = product(sum, random.below(2) ? x : strided(width()), 'accumulate')
  const others = [product(strided(width()), x, 'gelu'), product(strided(width()), x, 'store')]
  return [
    [others[0], others[1]],
    [others[0], product(strided(width()), strided(width()), 'relu')],
    [first, second],
    [others[0], first, second, others[1]],
    [first, second, product(sum, strided(width()), 'accumulate')],
  ][random.below(5)] as Product[]
}

/** Digests of the outputs behind `run`, which gets the products with outputs of their own: quick to compare, however large. */
function outputsOf(products: Product[], run: (products: Product[]) => void): string[] {
  const copies = new Map(products.map(({ out }) => [out, { ...out, data: out.data.slice() }]))
  run(products.map((product) => ({ ...product, out: copies.get(product.out) as Matrix })))
  return [...copies.values()].map(({ data }) => createHash('sha256').update(data).digest('hex'))
}

/** The error function, by its series near zero and its continued fraction further out; good to about 1e-15. */
function erf(x: number): number {
  const magnitude = Math.abs(x)
  if (magnitude < 3) {
    let term = magnitude
    let sum = magnitude
    for (let n = 1; n < 120; n++) {
      term *= (-magnitude * magnitude) / n
      sum += term / (2 * n + 1)
    }
    return (Math.sign(x) * 2 * sum) / Math.sqrt(Math.PI)
  }
  return Math.sign(x) * (1 - erfc(magnitude))
}

function erfc(x: number): number {
  if (x < 3) return 1 - erf(x)
  let fraction = 0
  for (let n = 60; n > 0; n--) fraction = n / 2 / (x + fraction)
  return Math.exp(-x * x) / ((x + fraction) * Math.sqrt(Math.PI))
}

const activations: Record<'gelu' | 'gelu_tanh' | 'relu' | 'silu', (x: number) => number> = {
  gelu: (x) => (x < 0 ? 0.5 * x * erfc(-x / Math.SQRT2) : 0.5 * x * (1 + erf(x / Math.SQRT2))),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(0, x),
  silu: (x) => x / (1 + Math.exp(-x)),
}

/** Largest error as a fraction of what float32 sums of `cols` products may have. */
function worstError(
  out: Matrix,
  before: Float32Array,
  x: Matrix,
  weight: Weight,
  bias: Float32Array | null,
  epilogue: Epilogue,
) {
  let worst = 0
  for (let t = 0; t < out.rows; t++) {
    for (let o = 0; o < out.cols; o++) {
      let sum = 0
      let size = 0
      for (let k = 0; k < x.cols; k++) {
        const product = at(x.data, t * x.cols + k) * at(weight.data, o * x.cols + k)
        sum += product
        size += Math.abs(product)
      }
      const y = sum + (bias ? at(bias, o) : 0)
      const old = at(before, t * out.cols + o)
      const expected = epilogue === 'store' ? y : epilogue === 'accumulate' ? old + y : activations[epilogue](y)
      // Each of the sum's roundings is of at most `size`; an activation's slope is at most 1.13. Without FMA there are two.
      const bound =
        (2 * x.cols + 8) *
          epsilon *
          (size + Math.abs(bias ? at(bias, o) : 0) + (epilogue === 'accumulate' ? Math.abs(old) : 0)) +
        1e-30
      const error = Math.abs(at(out.data, t * out.cols + o) - expected) / bound
      if (!(error <= worst)) worst = error // NaN comes through
    }
  }
  return worst
}

describeBackends('linear', (ops, { inputs }) => {
  for (const dtype of dtypes) {
    test(`agrees with float64 on odd shapes, ${dtype} weights`, () => {
      for (const rowCount of [1, 31, 32, 33, 100]) {
        for (const cols of [1, 7, 64, 80]) {
          for (const tokens of [1, 2, 3, 5, 7, 12, 13, 25, 30]) {
            const weight = { ...randomWeight(random, rowCount, cols, dtype), split: random.below(rowCount + 1) }
            const x = random.matrix(tokens, cols)
            roundAll(x.data, inputs(dtype))
            const bias = random.below(2) ? random.normals(rowCount) : null
            const out = poisoned(tokens, rowCount)
            linear(ops, out, x, weight, bias, 'store')
            expect(
              worstError(out, out.data, x, weight, bias, 'store'),
              `${rowCount} x ${cols}, ${tokens} tokens`,
            ).toBeLessThan(1)
          }
        }
      }
    })
  }

  test('gives every row the bits that it has alone, whatever the batch', () => {
    for (const dtype of dtypes) {
      const weight = randomWeight(random, 100, 80, dtype)
      const bias = random.normals(100)
      for (const tokens of [2, 4, 6, 7, 12, 13, 24, 40, 61]) {
        const x = random.matrix(tokens, 80)
        const together = poisoned(tokens, 100)
        linear(ops, together, x, weight, bias, 'gelu')
        for (let t = 0; t < tokens; t++) {
          const alone = poisoned(1, 100)
          linear(ops, alone, rows(x, t, t + 1), weight, bias, 'gelu')
          expect(bits(row(together, t)), `${dtype}, row ${t} of ${tokens}`).toEqual(bits(alone.data))
        }
      }
    }
  })

  test('gives the same bits in many cache blocks as in one', () => {
    const x = random.matrix(300, 1500)
    for (const dtype of dtypes) {
      const weight = randomWeight(random, 40, 1500, dtype)
      const together = poisoned(300, 40)
      linear(ops, together, x, weight, null, 'store')
      for (let t = 0; t < 300; t += 60) {
        const part = poisoned(10, 40)
        linear(ops, part, rows(x, t, t + 10), weight, null, 'store')
        expect(bits(rows(together, t, t + 10).data)).toEqual(bits(part.data))
      }
    }
  })

  test('packs the same weight from one call and from two', () => {
    for (const dtype of dtypes) {
      const weight = randomWeight(random, 70, 33, dtype)
      const x = random.matrix(3, 33)
      const whole = poisoned(3, 70)
      linear(ops, whole, x, weight, null, 'store')
      for (const split of [0, 1, 31, 32, 40, 64, 69]) {
        const out = poisoned(3, 70)
        linear(ops, out, x, { ...weight, split }, null, 'store')
        expect(bits(out.data)).toEqual(bits(whole.data))
      }
    }
  })

  test('rounds weights to the nearest 16-bit number, ties to even, subnormals and overflow included', () => {
    const special = [
      1,
      -0,
      65504,
      65519,
      65520,
      -1e6,
      2 ** -14,
      2 ** -24,
      1.5 * 2 ** -24,
      2.5 * 2 ** -24,
      2 ** -25,
      2 ** -26,
    ]
    const values = Float32Array.from([
      ...special,
      ...random.normals(500),
      ...random.normals(100, 2 ** -16),
      1 + 2 ** -11,
      1 + 3 * 2 ** -11,
    ])
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const out = poisoned(1, values.length)
      ops.embed(out, { dtype, rows: 1, cols: values.length, data: values }, Int32Array.of(0), new Float32Array(0), 0, 1)
      expect(bits(out.data)).toEqual(bits(roundAll(values.slice(), dtype)))
    }
  })

  test('takes every float16 weight for what it is, however it is split', () => {
    const special = [
      0,
      65504,
      -65504,
      2 ** -24,
      -3 * 2 ** -24,
      1023 * 2 ** -24,
      2 ** -14,
      1 + 2 ** -10,
      -1 - 7 * 2 ** -10,
    ]
    const data = roundAll(
      Float32Array.from([...special, ...random.normals(500), ...random.normals(100, 2 ** -16)]),
      'float16',
    )
    const weight: Weight = { dtype: 'float16', rows: data.length, cols: 1, data }
    for (const tokens of [1, 20]) {
      const out = poisoned(tokens, data.length)
      linear(ops, out, { data: new Float32Array(tokens).fill(1), rows: tokens, cols: 1 }, weight, null, 'store')
      for (let t = 0; t < tokens; t++) expect(row(out, t).map((y) => y + 0)).toEqual(data.map((w) => w + 0))
    }
  })

  test('adds to the output with accumulate', () => {
    for (const tokens of [1, 9, 30]) {
      const weight = randomWeight(random, 45, 64, 'float16')
      const x = random.matrix(tokens, 64)
      roundAll(x.data, inputs('float16'))
      const bias = random.normals(45)
      const out = random.matrix(tokens, 45, 10)
      const before = out.data.slice()
      linear(ops, out, x, weight, bias, 'accumulate')
      expect(worstError(out, before, x, weight, bias, 'accumulate')).toBeLessThan(1)
    }
  })

  test('gives the products of one pass the bits that they have in passes of their own', () => {
    for (const dtype of dtypes) {
      for (const tokens of [1, 2, 8, 9, 13, 40, 250]) {
        for (let i = 0; i < 4; i++) {
          const products = randomPass(tokens, dtype, tokens < 40 ? 200 : 300)
          const together = outputsOf(products, (all) => ops.linear(all))
          const apart = outputsOf(products, (all) => {
            for (const product of all) ops.linear([product])
          })
          expect(together, `${dtype}, ${tokens} tokens`).toEqual(apart)
        }
      }
    }
  })

  // A block of tokens is smaller for the wide one, and its blocks are then those of all in the pass.
  test('gives products of a pass the bits of passes of their own where one is very wide', () => {
    const tokens = 13 + random.below(12)
    const out = random.matrix(tokens, 40)
    const products = [300, 20_000].map((cols): Product => {
      const weight = randomWeight(random, 40, cols, 'float16')
      return { out, x: random.matrix(tokens, cols), weight, bias: null, epilogue: 'accumulate' }
    })
    const together = outputsOf(products, (all) => ops.linear(all))
    const apart = outputsOf(products, (all) => {
      for (const product of all) ops.linear([product])
    })
    expect(together, `${tokens} tokens`).toEqual(apart)
  })

  test('leaves the gaps between rows of a strided output alone and reads strided input', () => {
    const weight = randomWeight(random, 33, 20, 'float16')
    const wide = random.matrix(5, 31)
    const out: Matrix = { data: new Float32Array(4 * 50 + 33).fill(-7), rows: 5, cols: 33, stride: 50 }
    linear(ops, out, { data: wide.data, rows: 5, cols: 20, stride: 31 }, weight, null, 'store')
    for (let t = 0; t < 5; t++) {
      const alone = poisoned(1, 33)
      linear(ops, alone, { data: wide.data.slice(t * 31, t * 31 + 20), rows: 1, cols: 20 }, weight, null, 'store')
      expect(bits(out.data.slice(t * 50, t * 50 + 33))).toEqual(bits(alone.data))
      if (t < 4) expect(new Set(out.data.slice(t * 50 + 33, (t + 1) * 50))).toEqual(new Set([-7]))
    }
  })

  test('lets NaN and infinity through to their own outputs only', () => {
    const weight = randomWeight(random, 32, 16, 'float16')
    const x = random.matrix(4, 16)
    x.data[16 + 3] = Number.NaN
    const out = poisoned(4, 32)
    linear(ops, out, x, weight, null, 'store')
    expect(row(out, 1).every(Number.isNaN)).toBe(true)
    for (const t of [0, 2, 3]) expect(row(out, t).every(Number.isFinite)).toBe(true)
  })

  // One input column of weight 1: the output is the activation of the input itself.
  for (const activation of ['gelu', 'gelu_tanh', 'relu', 'silu'] as const) {
    test(`${activation} agrees with float64 from -20 to 20`, () => {
      const weight: Weight = { dtype: 'float32', rows: 1, cols: 1, data: Float32Array.of(1) }
      const inputs = Float32Array.from({ length: 8001 }, (_, i) => (i - 4000) / 200 + random.uniform() / 200)
      const out = poisoned(inputs.length, 1)
      linear(ops, out, { data: inputs, rows: inputs.length, cols: 1 }, weight, null, activation)
      let worst = 0
      for (let i = 0; i < inputs.length; i++) {
        const expected = activations[activation](at(inputs, i))
        // Relative to the result, and no worse than 1e-7 where it fades away.
        const error = Math.abs(at(out.data, i) - expected) / (1e-7 + 5e-7 * Math.abs(expected))
        if (!(error <= worst)) worst = error
      }
      expect(worst).toBeLessThan(1)
    })

    test(`${activation} is right at the ends of the float range`, () => {
      const weight: Weight = { dtype: 'float32', rows: 1, cols: 1, data: Float32Array.of(1) }
      const inputs = Float32Array.of(0, 1e30, 3e38, -1e30, -3e38, Number.POSITIVE_INFINITY, Number.NaN, 1e-40)
      const out = poisoned(inputs.length, 1)
      linear(ops, out, { data: inputs, rows: inputs.length, cols: 1 }, weight, null, activation)
      expect(Array.from(out.data.subarray(0, 7), Math.abs)).toEqual([
        0,
        Math.fround(1e30),
        Math.fround(3e38),
        0,
        0,
        Number.POSITIVE_INFINITY,
        Number.NaN,
      ])
    })
  }
})

describe('linear', () => {
  for (const isa of ['baseline', 'neon', 'avx2', 'avx512', 'amx'] as const) {
    test.skipIf(!addon.hasIsa(isa))(`gives the same bits with 1, 2, 3 and 7 threads, ${isa}`, () => {
      const weight = randomWeight(random, 300, 96, 'float16')
      const bias = random.normals(300)
      for (const tokens of [1, 8, 50]) {
        const x = random.matrix(tokens, 96)
        const [first, ...others] = [1, 2, 3, 7].map((threads) => {
          const out = poisoned(tokens, 300)
          linear(addon.testOps(isa, threads), out, x, weight, bias, 'gelu_tanh')
          return bits(out.data)
        })
        for (const other of others) expect(other).toEqual(first)

        const products = randomPass(tokens, 'float16', 300)
        const [one, ...more] = [1, 2, 3, 7].map((threads) =>
          outputsOf(products, (all) => addon.testOps(isa, threads).linear(all)),
        )
        for (const other of more) expect(other).toEqual(one)
      }
    })
  }

  test('a wrong call throws and names the argument', () => {
    const ops = addon.testOps('baseline', 1)
    const weight = randomWeight(random, 4, 4, 'float32')
    const x = random.matrix(1, 4)
    expect(() => linear(ops, poisoned(2, 4), x, weight, null, 'store')).toThrow('rows of out and x')
    expect(() => linear(ops, poisoned(1, 4), { ...x, rows: 9 }, weight, null, 'store')).toThrow('argument 0[0].x.data')
    expect(() => linear(ops, poisoned(1, 4), x, { ...weight, cols: 5 }, null, 'store')).toThrow(
      'argument 0[0].weight.data',
    )
    expect(() => linear(ops, poisoned(1, 4), x, weight, new Float32Array(3), 'store')).toThrow('bias')
    expect(() => linear(ops, poisoned(1, 4), x, weight, null, 'tanh' as Epilogue)).toThrow('argument 0[0].epilogue')
    const product: Product = { out: poisoned(1, 4), x, weight, bias: null, epilogue: 'store' }
    const of = (changed: Partial<Product>) => () => ops.linear([product, { ...product, ...changed }])
    expect(of({ out: poisoned(2, 4), x: random.matrix(2, 4) })).toThrow('rows of out, in each product: 2 and 1')
    expect(of({ weight: { ...weight, dtype: 'float16' } })).toThrow('weights: expected one type')
    expect(() => ops.linear([])).toThrow('products: expected 1 to 4, got 0')
    expect(() => ops.linear(Array(5).fill(product))).toThrow('products: expected 1 to 4, got 5')
    expect(() => ops.embed(poisoned(2, 4), weight, Int32Array.of(4), new Float32Array(0), 0, 1)).toThrow(
      'rows of out and tokens: 2 and 1',
    )
    expect(() => ops.sum(poisoned(1, 4), [poisoned(1, 5)], null, 'store')).toThrow('columns of out and a part: 4 and 5')
  })
})
