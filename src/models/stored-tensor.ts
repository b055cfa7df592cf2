// What every weight file's header comes to: a list of tensors and where their bytes lie.

import type { FileHandle } from 'node:fs/promises'
import { ModelError } from './model-error.js'

/** One tensor as it lies in its file. */
export interface StoredTensor {
  name: string
  /** safetensors' name of the number type, such as F16. */
  dtype: string
  shape: number[]
  /** Absolute path. */
  file: string
  /** Byte offset of the first number from the start of the file. */
  offset: number
  num_bytes: number
  /** Set only when the numbers do not lie row by row without gaps: how many numbers apart neighbours of each dimension are. */
  strides?: number[]
}

/** Bits of a number by safetensors' names. */
export const DTYPE_BITS: Record<string, number> = {
  BOOL: 8, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E5M2FNUZ: 8, F8_E4M3FNUZ: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6,
  I16: 16, U16: 16, F16: 16, BF16: 16, I32: 32, U32: 32, F32: 32, C64: 64, I64: 64, U64: 64, F64: 64,
} // biome-ignore format: a table

/** Bytes of a tensor; null when they cannot be counted exactly or are not whole. */
export function tensorBytes(shape: readonly number[], bits: number): number | null {
  let total = bits
  for (const size of shape) {
    total *= size
    if (!Number.isSafeInteger(total)) return null
  }
  return total % 8 === 0 ? total / 8 : null
}

/** Whether a value is a list of counts that arithmetic is exact on. */
export function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0)
}

/** Exactly `length` bytes at `position`. */
export async function readAt(file: string, handle: FileHandle, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  const { bytesRead } = await handle.read(bytes, 0, length, position)
  if (bytesRead !== length)
    throw new ModelError(`${file}: expected ${length} bytes at ${position}, could read ${bytesRead}`)
  return bytes
}
