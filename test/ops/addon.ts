// The ops of native/ops/ops.def as JavaScript calls, and what every op test needs: random inputs from a printed seed, poisoned
// outputs, 16-bit rounding, comparison against float64.

import { createRequire } from 'node:module'
import { describe } from 'vitest'
import type { Activation, DType, Isa, RopeLayout, SamplingParams } from '../../src/engine/contract.js'

export interface Matrix<T = Float32Array> {
  data: T
  rows: number
  cols: number
  /** numbers from row to row, cols by default */
  stride?: number
}

/** Of a 16-bit type, by the bits. */
export interface HalfMatrix extends Matrix<Uint16Array> {
  dtype: 'float16' | 'bfloat16'
}

export interface Weight {
  dtype: DType
  rows: number
  cols: number
  data: Float32Array
  /** packed in two calls, the first with this many rows */
  split?: number
}

/** ExpertWeights of native/ops/types.h. */
export interface Expert {
  gate_up: Weight
  down: Weight
}

export interface Heads {
  num_heads: number
  num_kv_heads: number
  head_dim: number
  rope_dims: number
}

export interface KvPages {
  dtype: DType
  num_pages: number
  keys: Float32Array | Uint16Array
  values: Float32Array | Uint16Array
}

export type Epilogue = 'store' | 'gelu' | 'gelu_tanh' | 'relu' | 'accumulate' | 'silu'

/** AttentionRule of native/ops/types.h. */
export interface AttentionRule {
  scale: number
  softcap?: number
  window?: number
  num_keys?: number
  bias?: Matrix
  bias_by_key?: true
}

export interface SampleRow {
  params: Partial<SamplingParams>
  position: number
  /** token, count, token, count ... */
  counts?: Int32Array
  /** ids */
  forbidden?: Int32Array
}

export interface AttentionRows {
  positions: Int32Array
  sequences: Int32Array
  page_table: Matrix<Int32Array>
}

/** A part of a pass of `linear`. */
export interface Product<Rows = Matrix> {
  out: Rows
  x: Rows
  weight: Weight
  bias: Float32Array | null
  epilogue: Epilogue
}

export interface Ops {
  embed(out: Matrix, table: Weight, tokens: Int32Array, chosen: Float32Array, first: number, scale: number): void
  sum(out: Matrix, parts: Matrix[], bias: Float32Array | null, epilogue: 'store' | 'accumulate'): void
  take_rows(out: Matrix, x: Matrix, rows: Int32Array): void
  layer_norm(
    out: Matrix,
    x: Matrix,
    weight: Float32Array | null,
    bias: Float32Array | null,
    width: number,
    eps: number,
  ): void
  rms_norm(out: Matrix, x: Matrix, weight: Float32Array | null, width: number, eps: number): void
  gate(out: Matrix | HalfMatrix, x: Matrix, activation: Activation): void
  scale(x: Matrix, factor: number): void
  softcap(x: Matrix, cap: number): void
  linear(products: Product<Matrix | HalfMatrix>[]): void
  route(experts: Matrix<Int32Array>, shares: Matrix, logits: Matrix, normalise: boolean): void
  mix_experts(
    out: Matrix,
    x: Matrix,
    experts: Matrix<Int32Array>,
    shares: Matrix,
    weights: Expert[],
    activation: Activation,
  ): void
  rope(qkv: Matrix, positions: Int32Array, cos_sin: Matrix, heads: Heads, layout: RopeLayout): void
  write_kv(kv: KvPages, qkv: Matrix, slots: Int32Array, heads: Heads): void
  copy_page(kv: KvPages, from: number, to: number, heads: Heads): void
  attention(
    out: Matrix | HalfMatrix,
    qkv: Matrix,
    kv: KvPages,
    rows: AttentionRows,
    heads: Heads,
    rule: AttentionRule,
  ): void
  sample(
    logits: Matrix,
    chosen: Float32Array,
    rows: SampleRow[],
    num_sampled_ids: number,
    tokens: Int32Array,
    logprobs: Float32Array,
    ranks: Int32Array,
    top_tokens: Matrix<Int32Array>,
    top_logprobs: Matrix,
  ): void
  score(
    logits: Matrix,
    rows: { token: number; num_top: number }[],
    logprobs: Float32Array,
    ranks: Int32Array,
    top_tokens: Matrix<Int32Array>,
    top_logprobs: Matrix,
  ): void
}

interface Addon {
  testOps(isa: Isa, numThreads: number): Ops
  /** of the first GPU that the library which PARLEY_CUDA_LIBRARY names has to offer: test/gpu/global-setup.ts chooses the emulated one */
  testCudaOps(deterministic: boolean): Ops
  hasIsa(isa: Isa): boolean
  calibrate(isa: Isa, numThreads: number, bytes: number, seconds: number): { readGBps: number; fmaGflops: number }
}

export const addon = createRequire(import.meta.url)('../../build/Release/parley.node') as Addon

export const pageSize = 16
export const dtypes: DType[] = ['float32', 'float16', 'bfloat16']

/** What a case must know of the device whose ops it calls. */
export interface TestedBackend {
  device: 'cpu' | 'cuda'
  /** the type that the inputs of a matrix product are rounded to */
  inputs(weights: DType): DType
  /** relative error of rounding what passes from one product to the next inside an op to that type, beside float32's */
  rounding(weights: DType): number
  /** where number `dim` of the key of a head at `offset` of its page stands, counted from the page's first number of the head */
  keyIndex(offset: number, dim: number, headDim: number): number
}

const cpu: TestedBackend = {
  device: 'cpu',
  inputs: () => 'float32',
  rounding: () => 0,
  keyIndex: (offset, dim) => dim * pageSize + offset,
}
const cuda: TestedBackend = {
  device: 'cuda',
  inputs: (weights) => weights,
  rounding: (weights) => ({ float32: 0, float16: 2 ** -11, bfloat16: 2 ** -8 })[weights],
  keyIndex: (offset, dim, headDim) => offset * headDim + dim,
}

/**
 * Runs the same cases on every instruction set that this machine has, with 1 and with 2 threads, and says which ones it lacks; and on
 * the kernels of CUDA.
 */
export function describeBackends(name: string, cases: (ops: Ops, backend: TestedBackend) => void): void {
  for (const isa of ['baseline', 'neon', 'avx2', 'avx512', 'amx'] as const) {
    if (!addon.hasIsa(isa)) {
      console.warn(`${name}: this machine has no ${isa}, its kernels are not tested here`)
      // Skipped out loud: no machine has every instruction set, and a report without the line would look complete.
      describe.skip(`${name}, ${isa}`, () => {})
      continue
    }
    for (const threads of [1, 2]) {
      describe(`${name}, ${isa}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`, () => {
        cases(addon.testOps(isa, threads), cpu)
      })
    }
  }
  describe(`${name}, CUDA`, () => {
    cases(addon.testCudaOps(true), cuda)
  })
}

/** The number at i, which the caller knows to be there. */
export function at(values: ArrayLike<number>, i: number): number {
  return values[i] as number
}

/** A generator whose seed is fresh unless PARLEY_TEST_SEED sets it, and printed, so that a failure can be had again. */
export function freshRandom(name: string): Random {
  const seed = Number(process.env.PARLEY_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))
  console.log(`${name}: PARLEY_TEST_SEED=${seed}`)
  return new Random(seed)
}

/** Mulberry32: enough for test inputs. */
export class Random {
  private state: number

  constructor(seed: number) {
    this.state = seed >>> 0
  }

  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0
    let t = Math.imul(this.state ^ (this.state >>> 15), 1 | this.state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  below(limit: number): number {
    return Math.floor(this.uniform() * limit)
  }

  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform())
  }

  normals(count: number, scale = 1): Float32Array {
    return Float32Array.from({ length: count }, () => scale * this.normal())
  }

  matrix(rows: number, cols: number, scale = 1): Matrix {
    return { data: this.normals(rows * cols, scale), rows, cols }
  }

  /** 0 .. count - 1 in random order. */
  permutation(count: number): Int32Array {
    const order = Int32Array.from({ length: count }, (_, i) => i)
    for (let i = count - 1; i > 0; i--) {
      const j = this.below(i + 1)
      const other = at(order, j)
      order[j] = at(order, i)
      order[i] = other
    }
    return order
  }
}

/** An output that shows every number that an op forgot to write. */
export function poisoned(rows: number, cols: number): Matrix {
  return { data: new Float32Array(rows * cols).fill(Number.NaN), rows, cols }
}

/** Row r of a matrix without gaps. */
export function row(matrix: Matrix, r: number): Float32Array {
  return matrix.data.subarray(r * matrix.cols, (r + 1) * matrix.cols)
}

/** The rows [first, last) as a matrix over the same memory. */
export function rows(matrix: Matrix, first: number, last: number): Matrix {
  return { data: matrix.data.subarray(first * matrix.cols, last * matrix.cols), rows: last - first, cols: matrix.cols }
}

/** The sum of float32 numbers in the order of the op `sum`: ((0 + 1) + (2 + 3)) + 4. */
export function treeSum(values: number[]): number {
  let level = values.length > 0 ? values : [0]
  while (level.length > 1) {
    level = Array.from({ length: Math.ceil(level.length / 2) }, (_, i) => {
      const [left, right] = [level[2 * i] as number, level[2 * i + 1]]
      return right === undefined ? left : Math.fround(left + right)
    })
  }
  return level[0] as number
}

/** The bits, for comparisons in which NaN equals NaN and 0 differs from -0. */
export function bits(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer.slice(values.byteOffset, values.byteOffset + values.byteLength))
}

const scratch = new DataView(new ArrayBuffer(4))

/** The bits of the nearest 16-bit number, ties to even; only for finite numbers. */
export function encode16(value: number, dtype: 'float16' | 'bfloat16'): number {
  if (dtype === 'bfloat16') {
    scratch.setFloat32(0, value)
    const wide = scratch.getUint32(0)
    return ((wide + 0x7fff + ((wide >>> 16) & 1)) >>> 16) & 0xffff
  }
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const magnitude = Math.abs(value)
  if (magnitude >= 65520) return sign | 0x7c00
  const exponent = Math.max(Math.floor(Math.log2(magnitude || 2 ** -30)), -14)
  const steps = roundToEven(magnitude / 2 ** (exponent - 10))
  return sign | (((exponent + 14) << 10) + steps)
}

function roundToEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

export function decode16(half: number, dtype: 'float16' | 'bfloat16'): number {
  if (dtype === 'bfloat16') {
    scratch.setUint32(0, half << 16)
    return scratch.getFloat32(0)
  }
  const sign = half & 0x8000 ? -1 : 1
  const exponent = (half >>> 10) & 31
  const mantissa = half & 0x3ff
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return exponent ? sign * (1024 + mantissa) * 2 ** (exponent - 25) : sign * mantissa * 2 ** -24
}

/** The value that a number has after it was stored as dtype. */
export function rounded(value: number, dtype: DType): number {
  return dtype === 'float32' ? Math.fround(value) : decode16(encode16(Math.fround(value), dtype), dtype)
}

/** Rounds in place, so that a reference sees the numbers that the op sees. */
export function roundAll(values: Float32Array, dtype: DType): Float32Array {
  if (dtype !== 'float32') for (let i = 0; i < values.length; i++) values[i] = rounded(at(values, i), dtype)
  return values
}

/** Pages of NaN, as memory that nobody has written yet. */
export function poisonedPages(num_pages: number, heads: Heads, dtype: DType): KvPages {
  const size = num_pages * heads.num_kv_heads * heads.head_dim * pageSize
  if (dtype === 'float32') {
    const make = () => new Float32Array(size).fill(Number.NaN)
    return { dtype, num_pages, keys: make(), values: make() }
  }
  const make = () => new Uint16Array(size).fill(0xffff)
  return { dtype, num_pages, keys: make(), values: make() }
}

export const epsilon = 2 ** -24 // half a unit in the last place of float32: the relative error of one rounding
