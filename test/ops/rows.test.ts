// The ops that work on one row at a time.
import { expect, test } from 'vitest'
import {
  at,
  bits,
  decode16,
  describeBackends,
  dtypes,
  epsilon,
  freshRandom,
  type Heads,
  type Matrix,
  pageSize,
  poisoned,
  poisonedPages,
  roundAll,
  rounded,
  row,
  rows,
  treeSum,
} from './addon.js'

const random = freshRandom('rows')

/** no tokens that were chosen */
const none = new Float32Array(0)

describeBackends('embed', (ops) => {
  test('copies rows of the table exactly', () => {
    for (const dtype of dtypes) {
      for (const cols of [1, 7, 16, 80]) {
        const data = roundAll(random.normals(70 * cols), dtype)
        const tokens = Int32Array.of(0, 69, 31, 32, 33, 5, 5)
        const out = poisoned(tokens.length, cols)
        ops.embed(out, { dtype, rows: 70, cols, data }, tokens, none, 0, 1)
        for (let t = 0; t < tokens.length; t++) {
          const token = at(tokens, t)
          expect(bits(row(out, t))).toEqual(bits(data.slice(token * cols, (token + 1) * cols)))
        }
      }
    }
  })
})

describeBackends('layer_norm', (ops) => {
  test('agrees with float64', () => {
    for (const n of [1, 2, 7, 16, 20, 64, 80, 768, 1000]) {
      const shift = random.normal() * 3
      const x = random.matrix(5, n, 2)
      for (let i = 0; i < x.data.length; i++) x.data[i] = at(x.data, i) + shift
      const weight = random.normals(n)
      const bias = random.normals(n)
      const out = poisoned(5, n)
      ops.layer_norm(out, x, weight, bias, n, 1e-5)
      for (let t = 0; t < 5; t++) {
        const values = Array.from(row(x, t))
        const mean = values.reduce((a, b) => a + b, 0) / n
        const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / n
        const largest = Math.max(...values.map(Math.abs))
        const factor = 1 / Math.sqrt(variance + 1e-5)
        for (let i = 0; i < n; i++) {
          const expected = (at(values, i) - mean) * factor * at(weight, i) + at(bias, i)
          // The mean is off by a few roundings of the largest number, and the factor makes that larger.
          const bound =
            16 *
            epsilon *
            (largest * factor * (1 + Math.abs(at(weight, i))) + Math.abs(expected) + Math.abs(at(bias, i)))
          expect(Math.abs(at(row(out, t), i) - expected), `${n} numbers, row ${t}, ${i}`).toBeLessThan(bound + 1e-30)
        }
      }
    }
  })

  test('gives every row the bits that it has alone', () => {
    const x = random.matrix(41, 700)
    const weight = random.normals(700)
    const bias = random.normals(700)
    const together = poisoned(41, 700)
    ops.layer_norm(together, x, weight, bias, 700, 1e-5)
    for (let t = 0; t < 41; t++) {
      const alone = poisoned(1, 700)
      ops.layer_norm(alone, rows(x, t, t + 1), weight, bias, 700, 1e-5)
      expect(bits(row(together, t))).toEqual(bits(alone.data))
    }
  })

  test('works in place', () => {
    const x = random.matrix(3, 50)
    const weight = random.normals(50)
    const out = poisoned(3, 50)
    ops.layer_norm(out, x, weight, weight, 50, 1e-5)
    ops.layer_norm(x, x, weight, weight, 50, 1e-5)
    expect(bits(x.data)).toEqual(bits(out.data))
  })
})

/** A norm in float64 of each run of `width` numbers. */
function normed(values: number[], width: number, eps: number, centred: boolean): number[] {
  return values.flatMap((_, first) => {
    if (first % width !== 0) return []
    const run = values.slice(first, first + width)
    const mean = centred ? run.reduce((a, b) => a + b, 0) / width : 0
    const variance = run.reduce((a, b) => a + (b - mean) ** 2, 0) / width
    return run.map((value) => (value - mean) / Math.sqrt(variance + eps))
  })
}

describeBackends('rms_norm, and norms of runs', (ops) => {
  test('agree with float64, with one weight for all runs, with each run its own, and with none', () => {
    for (const [width, runs] of [
      [1, 1],
      [7, 3],
      [16, 2],
      [64, 5],
      [80, 3],
      [96, 1],
      [1000, 1],
    ] as const) {
      const n = width * runs
      for (const size of [0, width, n]) {
        for (const centred of [false, true]) {
          const x = random.matrix(3, n, 2)
          const weight = size ? random.normals(size) : null
          const bias = size && centred ? random.normals(size) : null
          const out = poisoned(3, n)
          if (centred) ops.layer_norm(out, x, weight, bias, width, 1e-6)
          else ops.rms_norm(out, x, weight, width, 1e-6)
          for (let t = 0; t < 3; t++) {
            const expected = normed(Array.from(row(x, t)), width, 1e-6, centred)
            for (let i = 0; i < n; i++) {
              const w = weight ? at(weight, i % size) : 1
              const b = bias ? at(bias, i % size) : 0
              const bound = 1e-5 * (1 + Math.abs(w)) * (centred && width < 16 ? 100 : 1)
              expect(
                Math.abs(at(row(out, t), i) - (at(expected, i) * w + b)),
                `${width} x ${runs}, ${size} weights, ${i}`,
              ).toBeLessThan(bound)
            }
          }
        }
      }
    }
  })

  test('work in place on a part of each row, and give every row the bits that it has alone', () => {
    const whole = random.matrix(20, 300)
    const before = whole.data.slice()
    const weight = random.normals(40)
    const part: Matrix = { data: whole.data.subarray(60), rows: 20, cols: 120, stride: 300 }
    ops.rms_norm(part, part, weight, 40, 1e-6)
    for (let t = 0; t < 20; t++) {
      const alone = { data: before.slice(t * 300 + 60, t * 300 + 180), rows: 1, cols: 120 }
      ops.rms_norm(alone, alone, weight, 40, 1e-6)
      const expected = before.slice(t * 300, (t + 1) * 300)
      expected.set(alone.data, 60)
      expect(bits(row(whole, t))).toEqual(bits(expected))
    }
  })
})

/** Phi, the normal distribution's integral, by Simpson's rule. */
function phi(x: number): number {
  const steps = 2000
  let sum = 0
  for (let i = 0; i <= steps; i++) {
    const t = (x * i) / steps
    sum += (i === 0 || i === steps ? 1 : i % 2 ? 4 : 2) * Math.exp((-t * t) / 2)
  }
  return 0.5 + (sum * x) / steps / 3 / Math.sqrt(2 * Math.PI)
}

const activations = {
  gelu: (x: number) => x * phi(x),
  gelu_tanh: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x: number) => Math.max(x, 0),
  silu: (x: number) => x / (1 + Math.exp(-x)),
}

describeBackends('gate, sum, scale, take_rows and softcap', (ops) => {
  test.each(['gelu', 'gelu_tanh', 'relu', 'silu'] as const)('gate multiplies up by %s of gate', (activation) => {
    for (const n of [1, 15, 16, 33, 96]) {
      const x = random.matrix(4, 2 * n, 2)
      const out = poisoned(4, n)
      ops.gate(out, x, activation)
      for (let t = 0; t < 4; t++) {
        for (let i = 0; i < n; i++) {
          const up = at(row(x, t), n + i)
          const expected = activations[activation](at(row(x, t), i)) * up
          expect(Math.abs(at(row(out, t), i) - expected)).toBeLessThan(2e-6 * (1 + Math.abs(up)) * 4)
        }
      }
    }
  })

  test('silu of huge numbers is finite', () => {
    const x: Matrix = { data: Float32Array.of(-1e30, -200, 200, 1e30, 1, 1, 1, 1), rows: 1, cols: 8 }
    const out = poisoned(1, 4)
    ops.gate(out, x, 'silu')
    expect(Array.from(out.data, (value) => value || 0)).toEqual([0, 0, 200, Math.fround(1e30)])
  })

  test.each(['store', 'accumulate'] as const)('sum adds neighbours first, then a bias, and %s', (epilogue) => {
    for (const [count, n] of [
      [0, 5],
      [1, 1],
      [1, 37],
      [2, 16],
      [3, 37],
      [5, 9000],
      [64, 20],
    ] as const) {
      const stride = n + 3
      const parts = Array.from({ length: count }, () => ({ ...random.matrix(3, stride), cols: n, stride }))
      const out = epilogue === 'store' ? poisoned(3, n) : random.matrix(3, n)
      const bias = count % 2 === 0 ? random.normals(n) : null
      const expected = out.data.map((before, i) => {
        const at = Math.floor(i / n) * stride + (i % n)
        const sum = treeSum(parts.map(({ data }) => data[at] as number))
        const total = bias ? Math.fround(sum + (bias[i % n] as number)) : sum
        return epilogue === 'store' ? total : before + total
      })
      ops.sum(out, parts, bias, epilogue)
      expect(bits(out.data)).toEqual(bits(expected))
    }
  })

  test('embed gives zeros for tokens that the table lacks', () => {
    const data = random.normals(3 * 20)
    const out = poisoned(4, 20)
    ops.embed(out, { dtype: 'float32', rows: 3, cols: 20, data }, Int32Array.of(-1, 1, 3, -(2 ** 30)), none, 0, 1)
    expect(bits(row(out, 1))).toEqual(bits(data.slice(20, 40)))
    for (const t of [0, 2, 3]) expect(row(out, t).every((value) => value === 0)).toBe(true)
  })

  test('embed takes tokens that sample chose, without the host, and counts from the first row of its table', () => {
    const data = random.normals(3 * 20)
    const [tokens, chosen] = [new Int32Array(4), new Float32Array(4)]
    const logits: Matrix = { data: Float32Array.of(0, 1, 5, 9, 1, 5, 2, 7, 5, Number.NaN, 0, 0), rows: 4, cols: 3 }
    const greedy = Array.from(tokens, (_, position) => ({ params: { max_tokens: 1, temperature: 0 }, position }))
    const [ids, floats] = [
      { data: new Int32Array(0), rows: 4, cols: 0 },
      { data: none, rows: 4, cols: 0 },
    ]
    ops.sample(logits, chosen, greedy, 3, tokens, new Float32Array(4), new Int32Array(4), ids, floats)
    expect([...tokens]).toEqual([2, 0, 1, 1])
    expect([...chosen]).toEqual([2, 0, 1, 1])
    const table = { dtype: 'float32', rows: 3, cols: 20, data } as const
    const asked = Int32Array.from([2, 0, -1, 1, 3], (row) => (row < 0 ? 2 : -(2 ** 31) + row))
    for (const first of [0, 1]) {
      const out = poisoned(5, 20)
      ops.embed(out, table, asked, chosen, first, 1)
      for (const [t, token] of [1, 2, 2, 0, 1].entries()) {
        const at = 20 * (token - first)
        expect(bits(row(out, t))).toEqual(bits(at < 0 ? new Float32Array(20) : data.slice(at, at + 20)))
      }
    }
    expect(() => ops.embed(poisoned(1, 20), table, Int32Array.of(-(2 ** 31) + 4), chosen, 0, 1)).toThrow(
      'is not in chosen',
    )
  })

  test('scale multiplies, each number by itself', () => {
    for (const n of [1, 16, 37]) {
      const x = random.matrix(3, n)
      const expected = x.data.map((value) => Math.fround(0.0625) * value)
      ops.scale(x, 0.0625)
      expect(bits(x.data)).toEqual(bits(expected))
    }
  })

  test('take_rows copies rows in the order of the list, some twice', () => {
    const x = random.matrix(9, 37)
    const wanted = [8, 0, 3, 3]
    const out = poisoned(wanted.length, 37)
    ops.take_rows(out, x, Int32Array.from(wanted))
    wanted.forEach((t, r) => {
      expect(bits(row(out, r))).toEqual(bits(row(x, t)))
    })
    expect(() => ops.take_rows(out, x, Int32Array.of(0, 1, 2, 9))).toThrow('rows: 9 is not in 0..8')
  })

  test('softcap agrees with float64 and never leaves the cap', () => {
    for (const cap of [1, 30, 50]) {
      const x = random.matrix(3, 37, 2 * cap)
      x.data[5] = 1e20
      x.data[6] = -1e20
      const before = x.data.slice()
      ops.softcap(x, cap)
      x.data.forEach((value, i) => {
        expect(Math.abs(value - cap * Math.tanh(at(before, i) / cap))).toBeLessThan(4e-7 * cap)
        expect(Math.abs(value)).toBeLessThanOrEqual(cap)
      })
    }
  })

  test('embed multiplies by its scale', () => {
    const data = random.normals(3 * 20)
    const out = poisoned(1, 20)
    ops.embed(out, { dtype: 'float32', rows: 3, cols: 20, data }, Int32Array.of(2), none, 0, 1.5)
    expect(bits(out.data)).toEqual(bits(data.slice(40).map((value) => 1.5 * value)))
  })
})

const layouts: Heads[] = [
  { num_heads: 3, num_kv_heads: 3, head_dim: 64, rope_dims: 16 },
  { num_heads: 4, num_kv_heads: 2, head_dim: 80, rope_dims: 80 },
  { num_heads: 2, num_kv_heads: 1, head_dim: 20, rope_dims: 10 },
  { num_heads: 1, num_kv_heads: 1, head_dim: 96, rope_dims: 2 },
  { num_heads: 2, num_kv_heads: 2, head_dim: 8, rope_dims: 0 },
]

function qkvSize(heads: Heads): number {
  return (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim
}

describeBackends('rope', (ops) => {
  test.each(['half_split', 'interleaved'] as const)(
    'rotates the %s pairs of query and key heads by the angle of the position and nothing else',
    (layout) => {
      for (const heads of layouts) {
        const half = heads.rope_dims / 2
        const table = poisoned(40, Math.max(heads.rope_dims, 1))
        for (let p = 0; p < 40; p++) {
          for (let i = 0; i < half; i++) {
            const angle = p / 10000 ** (i / half)
            table.data[p * table.cols + i] = Math.cos(angle)
            table.data[p * table.cols + half + i] = Math.sin(angle)
          }
        }
        const qkv = random.matrix(6, qkvSize(heads))
        const before = qkv.data.slice()
        const positions = Int32Array.of(0, 39, 1, 7, 7, 20)
        ops.rope(qkv, positions, table, heads, layout)
        for (let t = 0; t < 6; t++) {
          for (let h = 0; h < heads.num_heads + 2 * heads.num_kv_heads; h++) {
            for (let i = 0; i < heads.head_dim; i++) {
              const first = t * qkv.cols + h * heads.head_dim
              if (h >= heads.num_heads + heads.num_kv_heads || i >= 2 * half) {
                expect(at(qkv.data, first + i)).toBe(at(before, first + i))
                continue
              }
              const split = layout === 'half_split'
              const pair = split ? i % half : i >> 1
              const isFirst = split ? i < half : i % 2 === 0
              const a = at(before, first + (split ? pair : 2 * pair))
              const b = at(before, first + (split ? pair + half : 2 * pair + 1))
              const cos = at(table.data, at(positions, t) * table.cols + pair)
              const sin = at(table.data, at(positions, t) * table.cols + half + pair)
              const expected = isFirst ? a * cos - b * sin : b * cos + a * sin
              expect(Math.abs(at(qkv.data, first + i) - expected)).toBeLessThanOrEqual(
                4 * epsilon * (Math.abs(a) + Math.abs(b)),
              )
            }
          }
        }
      }
    },
  )
})

describeBackends('write_kv', (ops, { keyIndex }) => {
  test('puts keys and values into their slots, rounded to the pages type, and touches no other slot', () => {
    for (const heads of layouts) {
      for (const dtype of dtypes) {
        const kv = poisonedPages(3, heads, dtype)
        const qkv = random.matrix(5, qkvSize(heads))
        const slots = Int32Array.of(0, 17, -1, 47, 20) // one row belongs to nobody
        ops.write_kv(kv, qkv, slots, heads)
        const number = (values: Float32Array | Uint16Array, i: number) =>
          dtype === 'float32' ? at(values, i) : decode16(at(values, i), dtype)
        for (let slot = 0; slot < 3 * pageSize; slot++) {
          const page = Math.floor(slot / pageSize)
          const offset = slot % pageSize
          const t = slots.indexOf(slot)
          for (let h = 0; h < heads.num_kv_heads; h++) {
            for (let d = 0; d < heads.head_dim; d++) {
              const first = (page * heads.num_kv_heads + h) * heads.head_dim * pageSize
              const key = number(kv.keys, first + keyIndex(offset, d, heads.head_dim))
              const value = number(kv.values, first + offset * heads.head_dim + d)
              if (t < 0) {
                expect(key).toBeNaN()
                expect(value).toBeNaN()
              } else {
                const source = t * qkv.cols + (heads.num_heads + h) * heads.head_dim + d
                expect(key).toBe(rounded(at(qkv.data, source), dtype))
                expect(value).toBe(rounded(at(qkv.data, source + heads.num_kv_heads * heads.head_dim), dtype))
              }
            }
          }
        }
      }
    }
  })
})

describeBackends('copy_page', (ops) => {
  test('makes one page like another and touches no third', () => {
    for (const heads of layouts) {
      for (const dtype of dtypes) {
        const kv = poisonedPages(3, heads, dtype)
        const slots = Int32Array.from({ length: pageSize }, (_, i) => 2 * pageSize + i)
        ops.write_kv(kv, random.matrix(pageSize, qkvSize(heads)), slots, heads)
        const page = (numbers: Float32Array | Uint16Array, index: number) =>
          numbers.slice((index * numbers.length) / 3, ((index + 1) * numbers.length) / 3)
        const before = [kv.keys, kv.values].map((numbers) => [0, 1, 2].map((index) => page(numbers, index)))
        ops.copy_page(kv, 2, 0, heads)
        const after = [kv.keys, kv.values].map((numbers) => [0, 1, 2].map((index) => page(numbers, index)))
        expect(after).toEqual(before.map(([, one, two]) => [two, one, two]))
        expect(() => ops.copy_page(kv, 2, 3, heads)).toThrow('page 3: expected 0 to 2')
      }
    }
  })
})
