// The header of a safetensors file: where each tensor lies. The numbers themselves are read by native code.
//
// A file is eight bytes of header length (little-endian), the header (JSON), and the tensors' bytes back to back. Everything in the
// header is checked here, exactly and without overflow, before native code maps the file.

import type { FileHandle } from 'node:fs/promises'
import { decodeUtf8, openFile, parseObject, refuseLfsPointer } from './folder.js'
import { firstDuplicateKey } from './json-keys.js'
import { describe, ModelError } from './model-error.js'
import { DTYPE_BITS, isCounts, readAt, type StoredTensor, tensorBytes } from './stored-tensor.js'

const MAX_HEADER_BYTES = 100_000_000

/**
 * Reads and checks a safetensors header.
 * @throws ModelError when the file is missing or anything in its header is not as the format asks
 */
export async function readSafetensors(file: string): Promise<StoredTensor[]> {
  const handle = await openFile(file)
  if (handle === null) throw new ModelError(`${file}: expected a safetensors file, found no such file`)
  try {
    const { size } = await handle.stat()
    const { header, dataStart } = await readHeader(file, handle, size)
    return checkLayout(file, parseHeader(file, header, dataStart), dataStart, size)
  } finally {
    await handle.close()
  }
}

async function readHeader(
  file: string,
  handle: FileHandle,
  size: number,
): Promise<{ header: Uint8Array; dataStart: number }> {
  const start = await readAt(file, handle, 0, Math.min(size, 64))
  refuseLfsPointer(file, start)
  if (size < 8) throw new ModelError(`${file}: expected a safetensors file of at least 8 bytes, found ${size} bytes`)
  const length = start.readBigUInt64LE(0)
  if (length > MAX_HEADER_BYTES) {
    throw new ModelError(
      `${file}: expected a safetensors header of at most ${MAX_HEADER_BYTES} bytes, found a length of ${length}`,
    )
  }
  const dataStart = 8 + Number(length)
  if (dataStart > size) {
    throw new ModelError(
      `${file}: expected at least ${dataStart} bytes (a header of ${length} bytes), found a file of ${size} bytes: is it complete?`,
    )
  }
  const header = await readAt(file, handle, 8, Number(length))
  if (header[0] !== 0x7b)
    throw new ModelError(`${file}: expected a safetensors header that starts with "{", found other bytes`)
  return { header, dataStart }
}

function parseHeader(file: string, header: Uint8Array, dataStart: number): StoredTensor[] {
  const text = decodeUtf8(file, header)
  const entries = parseObject(file, text)
  const duplicate = firstDuplicateKey(text)
  if (duplicate !== null)
    throw new ModelError(`${file}: expected each name in the header once, found ${describe(duplicate)} twice`)
  const tensors: StoredTensor[] = []
  for (const [name, entry] of Object.entries(entries)) {
    if (name === '__metadata__') checkMetadata(file, entry)
    else tensors.push(parseEntry(file, name, entry, dataStart))
  }
  return tensors
}

function checkMetadata(file: string, metadata: unknown): void {
  const values =
    typeof metadata === 'object' && metadata !== null && !Array.isArray(metadata) ? Object.values(metadata) : [null]
  if (values.every((value) => typeof value === 'string')) return
  throw new ModelError(`${file}: __metadata__: expected an object of strings, found ${describe(metadata)}`)
}

function parseEntry(file: string, name: string, entry: unknown, dataStart: number): StoredTensor {
  const where = `${file}: tensor ${describe(name)}`
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>
  const bits = typeof dtype === 'string' && Object.hasOwn(DTYPE_BITS, dtype) ? DTYPE_BITS[dtype] : undefined
  if (bits === undefined)
    throw new ModelError(`${where}: expected a dtype of the safetensors format, found ${describe(dtype)}`)
  if (!isCounts(shape)) throw new ModelError(`${where}: expected a shape of whole numbers, found ${describe(shape)}`)
  if (!isCounts(offsets) || offsets.length !== 2) {
    throw new ModelError(`${where}: expected data_offsets of two whole numbers, found ${describe(offsets)}`)
  }
  const [begin, end] = offsets as [number, number]
  const expected = tensorBytes(shape, bits)
  if (expected === null)
    throw new ModelError(`${where}: expected a shape that fits into a file, found ${describe(shape)} of ${dtype}`)
  if (end - begin !== expected) {
    throw new ModelError(
      `${where}: expected ${expected} bytes (${dtype} ${describe(shape)}), found data_offsets ${describe(offsets)}, ${end - begin} bytes`,
    )
  }
  return { name, dtype: dtype as string, shape, file, offset: dataStart + begin, num_bytes: expected }
}

/** The tensors fill the rest of the file exactly, with no byte shared, left out or left over. */
function checkLayout(file: string, tensors: StoredTensor[], dataStart: number, size: number): StoredTensor[] {
  let end = dataStart
  for (const tensor of tensors.toSorted((a, b) => a.offset - b.offset || a.num_bytes - b.num_bytes)) {
    if (tensor.offset !== end) {
      const kind = tensor.offset < end ? 'an overlap' : 'a hole'
      throw new ModelError(
        `${file}: tensor ${describe(tensor.name)}: expected data_offsets to begin at ${end - dataStart}, where the tensor before it ends, ` +
          `found ${tensor.offset - dataStart} (${kind})`,
      )
    }
    end += tensor.num_bytes
  }
  if (end !== size) {
    const hint = size < end ? ': is it complete?' : ''
    throw new ModelError(`${file}: expected ${end} bytes (header and tensors), found a file of ${size} bytes${hint}`)
  }
  return tensors
}
