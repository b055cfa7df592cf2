// Joins an architecture's row with a checkpoint's headers: a list of where each canonical tensor's numbers lie.

import { open } from 'node:fs/promises'
import type { DType, ModelSpec, TensorSource } from '../engine/contract.js'
import { type Architecture, canonicalShape, type StoredName, wantedTensors } from './architecture.js'
import type { Checkpoint } from './checkpoint.js'
import type { Fields } from './fields.js'
import { run } from './layouts.js'
import { describe, list, ModelError } from './model-error.js'
import type { StoredTensor } from './stored-tensor.js'

const DTYPES: Record<string, DType> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' }

export interface Sources {
  /** The spec, with the tie that the checkpoint's tensors ask for. */
  spec: ModelSpec
  tensors: TensorSource[]
  /** Absolute paths, indexed by TensorSource.file. */
  files: string[]
  /** Type of the embedding's numbers. */
  dtype: DType
  warnings: string[]
}

/**
 * Finds every tensor that the decoder needs.
 * @throws ModelError that names the first tensor of a wrong shape or type, or lists all missing ones
 */
export async function findSources(
  row: Architecture,
  config: Fields,
  wanted: ModelSpec,
  checkpoint: Checkpoint,
): Promise<Sources> {
  const names = new Names(row, checkpoint)
  const { tied, warning } = await tie(row, names, wanted)
  const spec = { ...wanted, tie_word_embeddings: tied }
  const files: string[] = []
  const tensors: TensorSource[] = []
  const missing = new Set<string>()
  for (const { stored, ...which } of wantedTensors(row, config, spec)) {
    const tensor = names.find(stored, which.layer, which.part)
    if (typeof tensor === 'string') missing.add(tensor)
    else tensors.push(source(which, tensor, stored, spec, files))
  }
  if (missing.size > 0) {
    throw new ModelError(
      `${checkpoint.source}: expected tensors that are not in it: ${list([...missing], 60)}; found ${checkpoint.tensors.size} tensors`,
    )
  }
  const warnings = [warning, names.unused()].filter((text) => text !== null)
  return { spec, tensors, files, dtype: tensors.find(({ role }) => role === 'embedding')?.dtype ?? 'float32', warnings }
}

/** Looks names up with or without the architecture's prefix, and remembers which ones were asked for. */
class Names {
  private readonly prefix: string
  private readonly used = new Set<string>()

  constructor(
    private readonly row: Architecture,
    readonly checkpoint: Checkpoint,
  ) {
    const [embedding] = row.tensors.embedding.names
    const known = [...row.prefixes, ''].find((prefix) => checkpoint.tensors.has(prefix + embedding))
    this.prefix = known ?? row.prefixes[0]
  }

  /** The stored tensor, or the name under which it was looked for. */
  find(stored: StoredName, layer = 0, part = 0): StoredTensor | string {
    const candidates = stored.names.map(
      (name) =>
        (stored.bare ? '' : this.prefix) + name.replace('{layer}', String(layer)).replace('{part}', String(part)),
    )
    for (const name of candidates) {
      const tensor = this.checkpoint.tensors.get(name)
      if (tensor === undefined) continue
      this.used.add(name)
      return tensor
    }
    return candidates[0] as string
  }

  /** A warning about tensors that nothing reads. */
  unused(): string | null {
    const extra = [...this.checkpoint.tensors.keys()].filter((name) => {
      const base = name.startsWith(this.prefix) ? name.slice(this.prefix.length) : name
      return !this.used.has(name) && !this.row.ignored.test(base)
    })
    return extra.length === 0
      ? null
      : `${this.checkpoint.source}: ignored tensors that the model has no use for: ${list(extra, 8)}`
  }
}

/**
 * Whether the unembedding is the embedding. The config says so; one that ties them beside a stored, different unembedding deserves a
 * word: transformers 4 uses the embedding then, transformers 5 the stored one.
 */
async function tie(
  row: Architecture,
  names: Names,
  spec: ModelSpec,
): Promise<{ tied: boolean; warning: string | null }> {
  const file = names.checkpoint.source
  if (!spec.tie_word_embeddings) return { tied: false, warning: null }
  const stored = names.find(row.tensors.unembedding)
  const embedding = names.find(row.tensors.embedding)
  if (typeof stored === 'string' || typeof embedding === 'string' || (await sameBytes(stored, embedding))) {
    return { tied: true, warning: null }
  }
  if (row.storedUnembeddingWins) return { tied: false, warning: null }
  return {
    tied: true,
    warning: `${file}: ${stored.name} differs from the embedding and is ignored, because the config ties them`,
  }
}

function source(
  which: Pick<TensorSource, 'role' | 'encoder' | 'layer' | 'part'>,
  tensor: StoredTensor,
  stored: StoredName,
  spec: ModelSpec,
  files: string[],
): TensorSource {
  const dtype = DTYPES[tensor.dtype]
  if (dtype === undefined) throw wrong(tensor, 'numbers of type F32, F16 or BF16', tensor.dtype)
  if (tensor.strides !== undefined)
    throw wrong(
      tensor,
      'numbers stored row by row',
      `strides ${describe(tensor.strides)} of shape ${describe(tensor.shape)}`,
    )
  const [rows, cols] = canonicalShape(which.role, spec)
  const groups = stored.rows?.(spec) ?? run(rows, 0, rows)
  const { transposed = false, addend = 0 } = stored
  const shape = cols === undefined ? [groups.stored_rows] : [groups.stored_rows, cols]
  if (transposed) shape.reverse()
  if (shape.join() !== tensor.shape.join()) throw wrong(tensor, `shape ${describe(shape)}`, describe(tensor.shape))
  const { offset } = tensor
  return {
    ...which,
    dtype,
    file: fileIndex(files, tensor.file),
    offset,
    cols: cols ?? 1,
    ...groups,
    transposed,
    addend,
  }
}

function wrong(tensor: StoredTensor, expected: string, found: string): ModelError {
  return new ModelError(`${tensor.file}: tensor ${describe(tensor.name)}: expected ${expected}, found ${found}`)
}

function fileIndex(files: string[], file: string): number {
  const known = files.indexOf(file)
  return known >= 0 ? known : files.push(file) - 1
}

async function sameBytes(a: StoredTensor, b: StoredTensor): Promise<boolean> {
  if (a.dtype !== b.dtype || a.num_bytes !== b.num_bytes || a.strides !== undefined || b.strides !== undefined)
    return false
  if (a.file === b.file && a.offset === b.offset) return true
  const [one, two] = await Promise.all([open(a.file, 'r'), open(b.file, 'r')])
  try {
    const chunks = [Buffer.alloc(1 << 20), Buffer.alloc(1 << 20)] as const
    for (let done = 0; done < a.num_bytes; done += chunks[0].length) {
      const length = Math.min(chunks[0].length, a.num_bytes - done)
      await one.read(chunks[0], 0, length, a.offset + done)
      await two.read(chunks[1], 0, length, b.offset + done)
      if (chunks[0].compare(chunks[1], 0, length, 0, length) !== 0) return false
    }
    return true
  } finally {
    await Promise.all([one.close(), two.close()])
  }
}
