import { expect, test } from 'vitest'
import {
  type AttentionRule,
  at,
  bits,
  decode16,
  describeBackends,
  dtypes,
  epsilon,
  freshRandom,
  type Heads,
  type KvPages,
  type Matrix,
  type Ops,
  pageSize,
  poisoned,
  poisonedPages,
  roundAll,
  row,
  rows,
  type TestedBackend,
} from './addon.js'

const random = freshRandom('attention')

const layouts: Heads[] = [
  { num_heads: 3, num_kv_heads: 3, head_dim: 64, rope_dims: 0 },
  { num_heads: 6, num_kv_heads: 2, head_dim: 80, rope_dims: 0 },
  { num_heads: 2, num_kv_heads: 1, head_dim: 20, rope_dims: 0 },
  { num_heads: 2, num_kv_heads: 2, head_dim: 96, rope_dims: 0 },
  { num_heads: 12, num_kv_heads: 1, head_dim: 7, rope_dims: 0 },
]

interface Case {
  backend: TestedBackend
  heads: Heads
  kv: KvPages
  /** rows of every sequence's tokens, all of them in the cache */
  qkv: Matrix
  positions: Int32Array
  sequences: Int32Array
  pageTable: Matrix<Int32Array>
  rule: AttentionRule
}

/** Sequences of these lengths in pages in random order; every slot behind a sequence's end is NaN. */
function makeCase(ops: Ops, backend: TestedBackend, heads: Heads, dtype: KvPages['dtype'], lengths: number[]): Case {
  const pagesOf = (length: number) => Math.ceil(length / pageSize)
  const numPages = lengths.reduce((sum, length) => sum + pagesOf(length), 0) + 2
  const order = random.permutation(numPages)
  const maxPages = Math.max(...lengths.map(pagesOf))
  const pageTable: Matrix<Int32Array> = {
    data: new Int32Array(lengths.length * maxPages).fill(-1),
    rows: lengths.length,
    cols: maxPages,
  }
  const total = lengths.reduce((a, b) => a + b, 0)
  const positions = new Int32Array(total)
  const sequences = new Int32Array(total)
  const slots = new Int32Array(total)
  let page = 0
  let t = 0
  lengths.forEach((length, s) => {
    for (let p = 0; p < pagesOf(length); p++) pageTable.data[s * maxPages + p] = at(order, page++)
    for (let j = 0; j < length; j++, t++) {
      positions[t] = j
      sequences[t] = s
      slots[t] = at(pageTable.data, s * maxPages + Math.floor(j / pageSize)) * pageSize + (j % pageSize)
    }
  })
  const kv = poisonedPages(numPages, heads, dtype)
  const qkv = random.matrix(total, (heads.num_heads + 2 * heads.num_kv_heads) * heads.head_dim)
  roundAll(qkv.data, backend.inputs(dtype))
  ops.write_kv(kv, qkv, slots, heads)
  return { backend, heads, kv, qkv, positions, sequences, pageTable, rule: { scale: 1 / Math.sqrt(heads.head_dim) } }
}

/** Attention of some of the rows. */
function attend(ops: Ops, c: Case, first: number, last: number): Matrix {
  const out = poisoned(last - first, c.heads.num_heads * c.heads.head_dim)
  const positions = c.positions.slice(first, last)
  const sequences = c.sequences.slice(first, last)
  ops.attention(out, rows(c.qkv, first, last), c.kv, { positions, sequences, page_table: c.pageTable }, c.heads, c.rule)
  return out
}

/** One row's output in float64, and the largest size of its parts, for the error bound. */
function reference(c: Case, t: number): { expected: Float64Array; size: number; scores: number } {
  const { head_dim, num_heads, num_kv_heads } = c.heads
  const number = (values: Float32Array | Uint16Array, i: number) =>
    c.kv.dtype === 'float32' ? at(values, i) : decode16(at(values, i), c.kv.dtype)
  const expected = new Float64Array(num_heads * head_dim)
  let size = 0
  let largestScore = 0
  for (let h = 0; h < num_heads; h++) {
    const kvHead = Math.floor(h / (num_heads / num_kv_heads))
    const weights: number[] = []
    const { scale, softcap = 0, window = 0, num_keys = 0, bias, bias_by_key } = c.rule
    const position = at(c.positions, t)
    const count = num_keys || position + 1
    const start = window ? Math.max(0, count - window) : 0
    const base = (j: number) =>
      (at(c.pageTable.data, at(c.sequences, t) * c.pageTable.cols + Math.floor(j / pageSize)) * num_kv_heads + kvHead) *
      head_dim *
      pageSize
    for (let j = start; j < count; j++) {
      let score = 0
      let parts = 0
      for (let d = 0; d < head_dim; d++) {
        const product =
          at(c.qkv.data, t * c.qkv.cols + h * head_dim + d) *
          number(c.kv.keys, base(j) + c.backend.keyIndex(j % pageSize, d, head_dim))
        score += product
        parts += Math.abs(product)
      }
      score *= scale
      if (softcap) score = softcap * Math.tanh(score / softcap)
      if (bias) {
        const zero = num_keys ? Math.floor(bias.cols / 2) : bias.cols - 1
        const column = bias_by_key ? j : Math.min(Math.max(0, zero - position + j), bias.cols - 1)
        score += at(bias.data, h * bias.cols + column)
      }
      weights.push(score)
      largestScore = Math.max(largestScore, parts * scale, Math.abs(score))
    }
    const top = Math.max(...weights)
    const total = weights.reduce((sum, score) => sum + Math.exp(score - top), 0)
    weights.forEach((score, index) => {
      const j = start + index
      const weight = Math.exp(score - top) / total
      for (let d = 0; d < head_dim; d++) {
        const value = number(c.kv.values, base(j) + (j % pageSize) * head_dim + d)
        expected[h * head_dim + d] = at(expected, h * head_dim + d) + weight * value
        size = Math.max(size, Math.abs(value))
      }
    })
  }
  return { expected, size, scores: largestScore }
}

/** A table that reaches back `distances` keys. */
function biasTable(heads: Heads, distances: number): Matrix {
  return random.matrix(heads.num_heads, distances, 2)
}

const rules: Record<string, (heads: Heads) => AttentionRule> = {
  'a window of 1': () => ({ scale: 0.2, window: 1 }),
  'a window of 3': () => ({ scale: 0.2, window: 3 }),
  'a window of 16': () => ({ scale: 0.2, window: 16 }),
  'a window of 23': () => ({ scale: 0.2, window: 23 }),
  'a softcap': () => ({ scale: 1, softcap: 5 }),
  'a bias for every distance': (heads) => ({ scale: 0.2, bias: biasTable(heads, 128) }),
  'a bias that ends before the keys do': (heads) => ({ scale: 0.2, bias: biasTable(heads, 21) }),
  'a bias for every key': (heads) => ({ scale: 0.2, bias: biasTable(heads, 70), bias_by_key: true }),
  'all of them': (heads) => ({ scale: 1, softcap: 8, window: 30, bias: biasTable(heads, 25) }),
}

describeBackends('attention', (ops, backend) => {
  for (const dtype of dtypes) {
    test(`agrees with float64, ${dtype} pages, odd heads and lengths`, () => {
      for (const heads of layouts) {
        const c = makeCase(ops, backend, heads, dtype, [1, 15, 16, 17, 70])
        const out = attend(ops, c, 0, c.qkv.rows)
        for (let t = 0; t < out.rows; t += 1 + random.below(6)) {
          const { expected, size, scores } = reference(c, t)
          // A score's error changes every weight by that factor; the sums add a rounding for each key.
          const bound =
            epsilon * size * (4 * heads.head_dim * scores + 4 * at(c.positions, t) + 32) +
            backend.rounding(dtype) * size
          for (let i = 0; i < out.cols; i++) {
            expect(
              Math.abs(at(row(out, t), i) - at(expected, i)),
              `head_dim ${heads.head_dim}, row ${t}, ${i}`,
            ).toBeLessThan(bound)
          }
        }
      }
    })
  }

  for (const [name, makeRule] of Object.entries(rules)) {
    test(`agrees with float64 with ${name}`, () => {
      for (const heads of layouts) {
        const c = makeCase(ops, backend, heads, 'float32', [1, 15, 16, 17, 70])
        c.rule = makeRule(heads)
        const out = attend(ops, c, 0, c.qkv.rows)
        for (let t = 0; t < out.rows; t += 1 + random.below(6)) {
          const { expected, size, scores } = reference(c, t)
          const bound =
            epsilon * size * (4 * heads.head_dim * scores + 4 * at(c.positions, t) + 32 + 8 * (c.rule.softcap ?? 0))
          for (let i = 0; i < out.cols; i++) {
            expect(
              Math.abs(at(row(out, t), i) - at(expected, i)),
              `head_dim ${heads.head_dim}, row ${t}, ${i}`,
            ).toBeLessThan(bound)
          }
        }
      }
    })

    test(`gives every row the bits that it has alone with ${name}, and a prompt in chunks the whole prompt's`, () => {
      for (const heads of layouts) {
        const c = makeCase(ops, backend, heads, 'float16', [37, 5, 64])
        c.rule = makeRule(heads)
        const together = attend(ops, c, 0, c.qkv.rows)
        // All rows on the CPU; the emulator of a GPU is slow.
        for (let t = 0; t < c.qkv.rows; t += backend.device === 'cuda' ? 1 + random.below(24) : 1) {
          expect(bits(attend(ops, c, t, t + 1).data), `head_dim ${heads.head_dim}, row ${t}`).toEqual(
            bits(row(together, t)),
          )
        }
        for (let first = 42; first < 106; ) {
          const last = Math.min(106, first + 1 + random.below(20))
          expect(bits(attend(ops, c, first, last).data)).toEqual(bits(rows(together, first, last).data))
          first = last
        }
      }
    })
  }

  test.each([undefined, 41, 151])(
    'sees keys behind a row too where nothing is causal, with a bias of %s columns',
    (cols) => {
      for (const heads of layouts) {
        for (const length of [1, 16, 70]) {
          const c = makeCase(ops, backend, heads, 'float16', [length])
          c.rule = { scale: 0.2, num_keys: length, ...(cols && { bias: biasTable(heads, cols) }) }
          const out = attend(ops, c, 0, length)
          for (let t = 0; t < length; t += 1 + random.below(6)) {
            const { expected, size, scores } = reference(c, t)
            const bound =
              epsilon * size * (4 * heads.head_dim * scores + 4 * length + 32) + backend.rounding('float16') * size
            for (let i = 0; i < out.cols; i++)
              expect(Math.abs(at(row(out, t), i) - at(expected, i)), `row ${t}, ${i}`).toBeLessThan(bound)
            expect(bits(attend(ops, c, t, t + 1).data)).toEqual(bits(row(out, t)))
          }
        }
      }
    },
  )

  test('never touches keys and values before the window, not even unwritten ones', () => {
    for (const window of [1, 5, 16, 33]) {
      for (const heads of layouts) {
        const c = makeCase(ops, backend, heads, 'float32', [60])
        c.rule = { ...c.rule, window }
        const before = attend(ops, c, 40, 60)
        const slots = Int32Array.from(
          { length: 41 - window },
          (_, j) => at(c.pageTable.data, Math.floor(j / pageSize)) * pageSize + (j % pageSize),
        )
        const bad: Matrix = {
          data: new Float32Array(slots.length * c.qkv.cols).fill(Number.NaN),
          rows: slots.length,
          cols: c.qkv.cols,
        }
        ops.write_kv(c.kv, bad, slots, c.heads)
        expect(bits(attend(ops, c, 40, 60).data)).toEqual(bits(before.data))
      }
    }
  })

  test('gives every row the bits that it has alone', () => {
    for (const heads of layouts) {
      for (const dtype of dtypes) {
        const c = makeCase(ops, backend, heads, dtype, [37, 5, 64])
        const together = attend(ops, c, 0, c.qkv.rows)
        // All rows on the CPU; the emulator of a GPU is slow.
        for (let t = 0; t < c.qkv.rows; t += backend.device === 'cuda' ? 1 + random.below(24) : 1) {
          expect(bits(attend(ops, c, t, t + 1).data), `head_dim ${heads.head_dim}, row ${t}`).toEqual(
            bits(row(together, t)),
          )
        }
      }
    }
  })

  test('gives a prompt in chunks the bits of the whole prompt', () => {
    for (const heads of layouts) {
      const c = makeCase(ops, backend, heads, 'float16', [150])
      const whole = attend(ops, c, 0, 150)
      for (let first = 0; first < 150; ) {
        const last = Math.min(150, first + 1 + random.below(40))
        expect(bits(attend(ops, c, first, last).data)).toEqual(bits(rows(whole, first, last).data))
        first = last
      }
    }
  })

  test('gives one row of each of many sequences the bits that it has alone', () => {
    const c = makeCase(ops, backend, layouts[0] as Heads, 'float16', [100, 1, 33, 16, 48, 250, 7])
    const last = Array.from(c.positions.keys()).filter(
      (t) => t + 1 === c.qkv.rows || at(c.sequences, t + 1) !== at(c.sequences, t),
    )
    const pick = <T extends Int32Array>(values: T) => Int32Array.from(last, (t) => at(values, t))
    const qkv: Matrix = {
      data: Float32Array.from(last.flatMap((t) => Array.from(row(c.qkv, t)))),
      rows: last.length,
      cols: c.qkv.cols,
    }
    const out = poisoned(last.length, c.heads.num_heads * c.heads.head_dim)
    const picked = { positions: pick(c.positions), sequences: pick(c.sequences), page_table: c.pageTable }
    ops.attention(out, qkv, c.kv, picked, c.heads, c.rule)
    last.forEach((t, i) => {
      expect(bits(row(out, i))).toEqual(bits(attend(ops, c, t, t + 1).data))
    })
  })

  test('does not let keys and values of later positions in, not even infinite ones', () => {
    const c = makeCase(ops, backend, layouts[0] as Heads, 'float32', [40])
    const before = attend(ops, c, 0, 40)
    const slotOf = (j: number) => at(c.pageTable.data, Math.floor(j / pageSize)) * pageSize + (j % pageSize)
    const bad: Matrix = { data: new Float32Array(c.qkv.cols).fill(Number.POSITIVE_INFINITY), rows: 1, cols: c.qkv.cols }
    ops.write_kv(c.kv, bad, Int32Array.of(slotOf(21)), c.heads)
    const after = attend(ops, c, 0, 40)
    expect(bits(rows(after, 0, 21).data)).toEqual(bits(rows(before, 0, 21).data))
  })

  test('survives scores far beyond the range of e^x', () => {
    const c = makeCase(ops, backend, layouts[0] as Heads, 'float32', [50])
    c.rule = { scale: 1e4 }
    const out = attend(ops, c, 0, 50)
    expect(out.data.every(Number.isFinite)).toBe(true)
  })
})
