// The ops that work on one row at a time: embed, layer_norm, rope, write_kv.
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
  pageSize,
  poisoned,
  poisonedPages,
  roundAll,
  rounded,
  row,
  rows,
} from './addon.js'

const random = freshRandom('rows')

describeBackends('embed', (ops) => {
  test('copies rows of the table exactly', () => {
    for (const dtype of dtypes) {
      for (const cols of [1, 7, 16, 80]) {
        const data = roundAll(random.normals(70 * cols), dtype)
        const tokens = Int32Array.of(0, 69, 31, 32, 33, 5, 5)
        const out = poisoned(tokens.length, cols)
        ops.embed(out, { dtype, rows: 70, cols, data }, tokens)
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
      ops.layer_norm(out, x, weight, bias, 1e-5)
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
    ops.layer_norm(together, x, weight, bias, 1e-5)
    for (let t = 0; t < 41; t++) {
      const alone = poisoned(1, 700)
      ops.layer_norm(alone, rows(x, t, t + 1), weight, bias, 1e-5)
      expect(bits(row(together, t))).toEqual(bits(alone.data))
    }
  })

  test('works in place', () => {
    const x = random.matrix(3, 50)
    const weight = random.normals(50)
    const out = poisoned(3, 50)
    ops.layer_norm(out, x, weight, weight, 1e-5)
    ops.layer_norm(x, x, weight, weight, 1e-5)
    expect(bits(x.data)).toEqual(bits(out.data))
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
  test('rotates the query and key heads by the angle of the position and nothing else', () => {
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
      ops.rope(qkv, positions, table, heads)
      for (let t = 0; t < 6; t++) {
        for (let h = 0; h < heads.num_heads + 2 * heads.num_kv_heads; h++) {
          for (let i = 0; i < heads.head_dim; i++) {
            const index = t * qkv.cols + h * heads.head_dim + i
            if (h >= heads.num_heads + heads.num_kv_heads || i >= 2 * half) {
              expect(at(qkv.data, index)).toBe(at(before, index))
              continue
            }
            const pair = i % half
            const a = at(before, index - i + pair)
            const b = at(before, index - i + pair + half)
            const cos = at(table.data, at(positions, t) * table.cols + pair)
            const sin = at(table.data, at(positions, t) * table.cols + half + pair)
            const expected = i < half ? a * cos - b * sin : b * cos + a * sin
            expect(Math.abs(at(qkv.data, index) - expected)).toBeLessThanOrEqual(
              4 * epsilon * (Math.abs(a) + Math.abs(b)),
            )
          }
        }
      }
    }
  })
})

describeBackends('write_kv', (ops) => {
  test('puts keys and values into their slots, rounded to the pages type, and touches no other slot', () => {
    for (const heads of layouts) {
      for (const dtype of dtypes) {
        const kv = poisonedPages(3, heads, dtype)
        const qkv = random.matrix(4, qkvSize(heads))
        const slots = Int32Array.of(0, 17, 47, 20)
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
              const key = number(kv.keys, first + d * pageSize + offset)
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
