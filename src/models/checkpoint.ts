// A checkpoint's tensors by name, from one file of weights or from several with an index.

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openFile, readJson } from './folder.js'
import { describe, list, ModelError } from './model-error.js'
import { readSafetensors } from './safetensors.js'
import type { StoredTensor } from './stored-tensor.js'
import { readTorch } from './torch-file.js'

/** Formats of weights in the order of preference, which is transformers' own: a folder can hold a model in several. */
const FORMATS: { single: string; index: string; read: (file: string) => Promise<StoredTensor[]> }[] = [
  { single: 'model.safetensors', index: 'model.safetensors.index.json', read: readSafetensors },
  { single: 'pytorch_model.bin', index: 'pytorch_model.bin.index.json', read: readTorch },
]

/** What a folder's weights are. */
export interface Checkpoint {
  /** The file to name when a tensor is missing: the weights or their index. */
  source: string
  tensors: Map<string, StoredTensor>
}

/** Finds the folder's weights and reads the headers of their files. */
export async function readCheckpoint(folder: string): Promise<Checkpoint> {
  for (const { single, index, read } of FORMATS) {
    const source = join(folder, single)
    const handle = await openFile(source)
    if (handle !== null) {
      await handle.close()
      return { source, tensors: byName(await read(source)) }
    }
    const sharded = await readShards(folder, index, read)
    if (sharded !== null) return sharded
  }
  return refuseOtherFormats(folder)
}

async function readShards(
  folder: string,
  index: string,
  read: (file: string) => Promise<StoredTensor[]>,
): Promise<Checkpoint | null> {
  const source = join(folder, index)
  const fields = await readJson(source)
  if (fields === null) return null
  const map = fields.object('weight_map')
  if (map === undefined) throw new ModelError(`${source}: expected a weight_map from tensor names to files, found none`)
  const stored = new Map<string, Map<string, StoredTensor>>()
  const tensors = new Map<string, StoredTensor>()
  for (const name of map.keys()) {
    const shard = shardName(source, name, map.raw(name))
    let shardTensors = stored.get(shard)
    if (shardTensors === undefined) {
      shardTensors = byName(await read(join(folder, shard)))
      stored.set(shard, shardTensors)
    }
    const tensor = shardTensors.get(name)
    if (tensor === undefined) {
      throw new ModelError(
        `${join(folder, shard)}: expected tensor ${describe(name)}, which ${index} places here, found no such tensor`,
      )
    }
    tensors.set(name, tensor)
  }
  return { source, tensors }
}

/** A shard is a file beside its index and nothing else: an index must not lead out of the folder. */
function shardName(source: string, tensor: string, shard: unknown): string {
  if (typeof shard === 'string' && /^[^/\\\0]+$/.test(shard) && shard !== '.' && shard !== '..') return shard
  throw new ModelError(
    `${source}: weight_map[${describe(tensor)}]: expected the name of a file in the folder, found ${describe(shard)}`,
  )
}

async function refuseOtherFormats(folder: string): Promise<never> {
  const others = (await readdir(folder))
    .filter((name) => /\.(bin|pt|pth|ckpt|gguf|h5|msgpack|onnx|safetensors)$/.test(name))
    .toSorted()
  const found = others.length > 0 ? `only ${list(others, 4)}` : 'none of them'
  const names = FORMATS.flatMap(({ single, index }) => [single, index])
  throw new ModelError(`${folder}: expected ${names.slice(0, -1).join(', ')} or ${names.at(-1)}; found ${found}`)
}

function byName(tensors: StoredTensor[]): Map<string, StoredTensor> {
  return new Map(tensors.map((tensor) => [tensor.name, tensor]))
}
