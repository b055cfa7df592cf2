// torch.save before PyTorch 1.6: five pickles (magic number, protocol, system, the object, keys of the storages), then, in the order of
// the keys, a count of 8 bytes and the bytes of each storage.

import type { FileHandle } from 'node:fs/promises'
import { describe, ModelError } from './model-error.js'
import { kindOf, PickleCut, PickleDict, type PickleValue, readPickle, StridedTensor } from './pickle.js'
import { DTYPE_BITS, readAt, tensorBytes } from './stored-tensor.js'
import type { ByteRange, TorchFile } from './torch-file.js'

const MAGIC = '0x1950a86a20f9469cfc6c'
const PROTOCOL = 1001
const FIRST_READ = 1 << 20
const MAX_PICKLE_BYTES = 100_000_000

export async function readTorchLegacy(file: string, handle: FileHandle, size: number): Promise<TorchFile> {
  const { state, keys, end } = await readPickles(file, handle, size)
  const dtypes = storageTypes(file, state)
  const storages = new Map<string, ByteRange>()
  let at = end
  for (const key of keys) {
    const where = `${file}: storage ${describe(key)}`
    const dtype = dtypes.get(key)
    if (dtype === undefined) throw new ModelError(`${where}: expected a tensor that uses it, found none`)
    if (storages.has(key)) throw new ModelError(`${where}: expected once, found twice`)
    if (at + 8 > size)
      throw new ModelError(`${where}: expected its size at ${at}, found a file of ${size} bytes: is it complete?`)
    const count = (await readAt(file, handle, at, 8)).readBigUInt64LE()
    const num_bytes = tensorBytes([Number(count)], DTYPE_BITS[dtype] as number)
    if (num_bytes === null || at + 8 + num_bytes > size) {
      throw new ModelError(
        `${where}: expected ${count} numbers of type ${dtype} at ${at + 8}, found a file of ${size} bytes: is it complete?`,
      )
    }
    storages.set(key, { offset: at + 8, num_bytes })
    at += 8 + num_bytes
  }
  if (at !== size)
    throw new ModelError(`${file}: expected ${at} bytes (pickles and storages), found a file of ${size} bytes`)
  return { state, storages }
}

/** The pickles lie at the start, and their length is known only once they are read. */
async function readPickles(
  file: string,
  handle: FileHandle,
  size: number,
): Promise<{ state: PickleValue; keys: string[]; end: number }> {
  for (let length = Math.min(size, FIRST_READ); ; length = Math.min(size, MAX_PICKLE_BYTES, 8 * length)) {
    try {
      return parsePickles(file, await readAt(file, handle, 0, length))
    } catch (error) {
      if (!(error instanceof PickleCut) || length >= Math.min(size, MAX_PICKLE_BYTES)) throw error
    }
  }
}

function parsePickles(file: string, bytes: Buffer): { state: PickleValue; keys: string[]; end: number } {
  let at = 0
  const next = (what: string) => {
    const { value, end } = readPickle(`${file}: ${what}`, bytes, at)
    at = end
    return value
  }
  const wrong = (expected: string, found: PickleValue | undefined) =>
    new ModelError(`${file}: expected ${expected}, found ${kindOf(found)}`)
  if (bytes[0] !== 0x80)
    throw new ModelError(`${file}: expected a zip file or a pickle, as torch.save writes, found other bytes`)
  const magic = next('magic number')
  if (magic !== MAGIC) throw wrong(`the magic number ${MAGIC} of torch.save`, magic)
  const protocol = next('protocol')
  if (protocol !== PROTOCOL) throw wrong(`protocol ${PROTOCOL} of torch.save`, protocol)
  const system = next('system')
  const littleEndian = system instanceof PickleDict ? system.get('little_endian') : undefined
  if (littleEndian !== true) throw wrong('a file of a little-endian machine', littleEndian)
  const state = next('state')
  const keys = next('keys of the storages')
  if (!Array.isArray(keys) || !keys.every((key) => typeof key === 'string')) throw wrong('a list of keys', keys)
  return { state, keys, end: at }
}

/** The type of each storage, which only the tensors know. */
function storageTypes(file: string, state: PickleValue): Map<string, string> {
  const types = new Map<string, string>()
  for (const [name, value] of state instanceof PickleDict ? state : []) {
    if (!(value instanceof StridedTensor)) continue // readTorch refuses it
    const { key, dtype } = value.storage
    const known = types.get(key) ?? dtype
    if (known !== dtype)
      throw new ModelError(
        `${file}: tensor ${describe(name)}: expected storage ${describe(key)} to hold ${known}, found ${dtype}`,
      )
    types.set(key, dtype)
  }
  return types
}
