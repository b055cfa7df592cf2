// pytorch_model.bin: a pickle that describes views of storages, and the storages' bytes. What two generations of the format share.

import { openFile, refuseLfsPointer } from './folder.js'
import { describe, ModelError } from './model-error.js'
import { kindOf, PickleDict, type PickleValue, type Storage, StridedTensor } from './pickle.js'
import { DTYPE_BITS, readAt, type StoredTensor, tensorBytes } from './stored-tensor.js'
import { readTorchLegacy } from './torch-legacy.js'
import { isZip, readTorchZip } from './torch-zip.js'

/** Where the bytes of a storage lie. */
export interface ByteRange {
  offset: number
  num_bytes: number
}

/** A file's pickle and its storages by key. */
export interface TorchFile {
  state: PickleValue
  storages: Map<string, ByteRange>
}

/**
 * Reads and checks where the tensors of a file of torch.save lie.
 * @throws ModelError when the file is missing, holds anything but tensors, or contradicts itself
 */
export async function readTorch(file: string): Promise<StoredTensor[]> {
  const handle = await openFile(file)
  if (handle === null) throw new ModelError(`${file}: expected a file of torch.save, found no such file`)
  try {
    const { size } = await handle.stat()
    const start = await readAt(file, handle, 0, Math.min(size, 64))
    refuseLfsPointer(file, start)
    const torch = isZip(start) ? await readTorchZip(file, handle, size) : await readTorchLegacy(file, handle, size)
    return tensorsOf(file, torch)
  } finally {
    await handle.close()
  }
}

function tensorsOf(file: string, { state, storages }: TorchFile): StoredTensor[] {
  if (!(state instanceof PickleDict))
    throw new ModelError(`${file}: expected a dict from names to tensors, found ${kindOf(state)}`)
  const tensors: StoredTensor[] = []
  for (const [name, value] of state) {
    if (!(value instanceof StridedTensor))
      throw new ModelError(`${file}: ${describe(name)}: expected a tensor, found ${kindOf(value)}`)
    tensors.push(locate(file, name, value, storages))
  }
  return tensors
}

function locate(file: string, name: string, tensor: StridedTensor, storages: Map<string, ByteRange>): StoredTensor {
  const { storage, shape, strides } = tensor
  const wrong = (expected: string, found: string) =>
    new ModelError(`${file}: tensor ${describe(name)}: expected ${expected}, found ${found}`)
  const range = storages.get(storage.key)
  if (range === undefined) throw wrong(`storage ${describe(storage.key)} in the file`, 'none of that key')
  const bits = DTYPE_BITS[storage.dtype] as number
  const storage_bytes = storageBytes(storage)
  if (storage_bytes !== range.num_bytes) {
    throw wrong(
      `${storage_bytes ?? 'countable'} bytes of storage ${describe(storage.key)} (${storage.num_numbers} numbers of type ${storage.dtype})`,
      `${range.num_bytes} bytes`,
    )
  }
  const num_bytes = tensorBytes(shape, bits)
  if (num_bytes === null) throw wrong('a shape that fits into a file', `${describe(shape)} of ${storage.dtype}`)
  // One behind the last number that the view reaches.
  const empty = shape.includes(0)
  const end = shape.reduce((sum, size, i) => sum + (size - 1) * (strides[i] as number), tensor.offset + 1)
  if (empty ? tensor.offset > storage.num_numbers : !(end <= storage.num_numbers)) {
    throw wrong(
      `a view of the ${storage.num_numbers} numbers of storage ${describe(storage.key)}`,
      `shape ${describe(shape)}, strides ${describe(strides)} from number ${tensor.offset} on`,
    )
  }
  return {
    name,
    dtype: storage.dtype,
    shape: [...shape],
    file,
    offset: range.offset + (tensor.offset * bits) / 8,
    num_bytes,
    ...(empty || isRowByRow(shape, strides) ? {} : { strides: [...strides] }),
  }
}

/** Bytes of a storage; null when they cannot be counted exactly. */
function storageBytes(storage: Storage): number | null {
  return tensorBytes([storage.num_numbers], DTYPE_BITS[storage.dtype] as number)
}

/** C order without gaps; the stride of a dimension of size 1 means nothing. */
function isRowByRow(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== expected) return false
    expected *= shape[i] as number
  }
  return true
}
