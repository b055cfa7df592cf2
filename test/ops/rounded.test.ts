// What goes into `linear` on CUDA may be rounded by the op that writes it: the same bits as if `linear` did so.

import { describe, expect, test } from 'vitest'
import {
  addon,
  at,
  type Epilogue,
  encode16,
  freshRandom,
  type HalfMatrix,
  type Heads,
  type Matrix,
  pageSize,
  poisoned,
  poisonedPages,
  roundAll,
} from './addon.js'

const random = freshRandom('rounded')
const halves = ['float16', 'bfloat16'] as const
type Half = (typeof halves)[number]

/** Rows of ones' bits (NaN), with a gap behind each. */
function unwritten(dtype: Half, rowCount: number, cols: number, gap: number): HalfMatrix {
  return {
    dtype,
    data: new Uint16Array(rowCount * (cols + gap)).fill(0xffff),
    rows: rowCount,
    cols,
    stride: cols + gap,
  }
}

/** The numbers rounded, with NaN in the gaps. */
function halfOf(matrix: Matrix, dtype: Half, gap = 0): HalfMatrix {
  const half = unwritten(dtype, matrix.rows, matrix.cols, gap)
  for (let t = 0; t < matrix.rows; t++) {
    for (let i = 0; i < matrix.cols; i++) {
      half.data[t * (matrix.cols + gap) + i] = encode16(at(matrix.data, t * matrix.cols + i), dtype)
    }
  }
  return half
}

describe.each(halves)('CUDA, %s', (dtype) => {
  const ops = addon.testCudaOps(true)

  test('linear takes rounded rows, and rounds what it activates', () => {
    for (const tokens of [1, 3, 8, 9, 33, 64, 65, 130]) {
      const cols = 64 * (1 + random.below(5))
      const x = random.matrix(tokens, cols)
      const outCols = 1 + random.below(200)
      const weight = { dtype, rows: outCols, cols, data: roundAll(random.normals(outCols * cols, 0.1), dtype) }
      for (const epilogue of ['store', 'gelu', 'gelu_tanh', 'relu', 'silu'] satisfies Epilogue[]) {
        const bias = random.below(2) ? random.normals(outCols) : null
        const plain = poisoned(tokens, outCols)
        ops.linear([{ out: plain, x, weight, bias, epilogue }])
        const out =
          epilogue === 'store' ? poisoned(tokens, outCols) : unwritten(dtype, tokens, outCols, random.below(9))
        ops.linear([{ out, x: halfOf(x, dtype), weight, bias, epilogue }])
        const expected = 'dtype' in out ? halfOf(plain, dtype, (out.stride ?? 0) - outCols) : plain
        expect(out.data, `${tokens} tokens, ${epilogue}`).toEqual(expected.data)
      }
    }
  })

  test('a pass takes rounded rows beside others', () => {
    for (const tokens of [2, 20]) {
      const [x, other] = [random.matrix(tokens, 128), random.matrix(tokens, 70)]
      const weight = (cols: number) => ({ dtype, rows: 33, cols, data: roundAll(random.normals(33 * cols), dtype) })
      const [first, second] = [weight(128), weight(70)]
      const sums = [x, halfOf(x, dtype)].map((rows) => {
        const out = poisoned(tokens, 33)
        ops.linear([
          { out, x: rows, weight: first, bias: null, epilogue: 'store' },
          { out, x: other, weight: second, bias: null, epilogue: 'accumulate' },
        ])
        return out.data
      })
      expect(sums[1]).toEqual(sums[0])
    }
  })

  test('gate rounds', () => {
    for (const cols of [7, 64]) {
      const [x, plain, out] = [random.matrix(5, 2 * cols), poisoned(5, cols), unwritten(dtype, 5, cols, 3)]
      ops.gate(plain, x, 'silu')
      ops.gate(out, x, 'silu')
      expect(out.data).toEqual(halfOf(plain, dtype, 3).data)
    }
  })

  test('attention rounds, whether a row has one split or many', () => {
    for (const head_dim of [64, 80, 6]) {
      const heads: Heads = { num_heads: 2, num_kv_heads: 1, head_dim, rope_dims: 0 }
      for (const length of [3, 700]) {
        const pages = Math.ceil(length / pageSize)
        const kv = poisonedPages(pages, heads, dtype)
        const qkv = random.matrix(length, 4 * head_dim)
        ops.write_kv(
          kv,
          qkv,
          Int32Array.from({ length }, (_, i) => i),
          heads,
        )
        const page_table = { data: Int32Array.from({ length: pages }, (_, i) => i), rows: 1, cols: pages }
        for (const count of [1, Math.min(length, 70)]) {
          const last: Matrix = { data: qkv.data.subarray((length - count) * qkv.cols), rows: count, cols: qkv.cols }
          const positions = Int32Array.from({ length: count }, (_, i) => length - count + i)
          const rows = { positions, sequences: new Int32Array(count), page_table }
          const [plain, out] = [poisoned(count, 2 * head_dim), unwritten(dtype, count, 2 * head_dim, 0)]
          for (const to of [plain, out]) ops.attention(to, last, kv, rows, heads, { scale: 0.1 })
          expect(out.data, `${head_dim} dims, ${count} rows of ${length}`).toEqual(halfOf(plain, dtype).data)
        }
      }
    }
  })

  test('other types are refused', () => {
    const other = halves.find((half) => half !== dtype) as Half
    const weight = { dtype, rows: 1, cols: 64, data: random.normals(64) }
    const x = random.matrix(1, 64)
    const run = (out: Matrix | HalfMatrix, rows: Matrix | HalfMatrix, epilogue: Epilogue) => () =>
      ops.linear([{ out, x: rows, weight, bias: null, epilogue }])
    expect(run(poisoned(1, 1), halfOf(x, other), 'store')).toThrow(`x: expected float32 or ${dtype}, got ${other}`)
    expect(run(unwritten(other, 1, 1, 0), x, 'gelu')).toThrow(`out: expected float32 or ${dtype}, got ${other}`)
    expect(run(unwritten(dtype, 1, 1, 0), x, 'store')).toThrow('out: expected float32 without an activation')
    expect(run(poisoned(1, 1), halfOf(random.matrix(1, 63), dtype), 'store')).toThrow('columns of x and weight')
    const narrow = { ...weight, cols: 63 }
    expect(() =>
      ops.linear([
        { out: poisoned(1, 1), x: halfOf(random.matrix(1, 63), dtype), weight: narrow, bias: null, epilogue: 'store' },
      ]),
    ).toThrow(`linear: rows of ${dtype} with ${dtype} weights, 63 numbers apart`)
  })
})
