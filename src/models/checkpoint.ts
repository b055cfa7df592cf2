// A checkpoint's tensors by name, from one safetensors file or from several with an index.

import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { openFile, readJson } from './folder.js'
import { describe, list, ModelError } from './model-error.js'
import { readSafetensors, type StoredTensor } from './safetensors.js'

const SINGLE = 'model.safetensors'
const INDEX = 'model.safetensors.index.json'

/** What a folder's weights are. */
export interface Checkpoint {
  /** The file to name when a tensor is missing: the weights or their index. */
  source: string
  tensors: Map<string, StoredTensor>
}

/** Finds the folder's weights and reads the headers of their files. */
export async function readCheckpoint(folder: string): Promise<Checkpoint> {
  const single = join(folder, SINGLE)
  const handle = await openFile(single)
  if (handle !== null) {
    await handle.close()
    return { source: single, tensors: byName(await readSafetensors(single)) }
  }
  return (await readShards(folder)) ?? (await refuseOtherFormats(folder))
}

async function readShards(folder: string): Promise<Checkpoint | null> {
  const source = join(folder, INDEX)
  const map = (await readJson(source))?.object('weight_map')
  if (map === undefined) {
    if ((await readJson(source)) === null) return null
    throw new ModelError(`${source}: expected a weight_map from tensor names to files, found none`)
  }
  const stored = new Map<string, Map<string, StoredTensor>>()
  const tensors = new Map<string, StoredTensor>()
  for (const name of map.keys()) {
    const shard = shardName(source, name, map.raw(name))
    let shardTensors = stored.get(shard)
    if (shardTensors === undefined) {
      shardTensors = byName(await readSafetensors(join(folder, shard)))
      stored.set(shard, shardTensors)
    }
    const tensor = shardTensors.get(name)
    if (tensor === undefined) {
      throw new ModelError(
        `${join(folder, shard)}: expected tensor ${describe(name)}, which ${INDEX} places here, found no such tensor`,
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
  const found = others.length > 0 ? `only ${list(others, 4)}` : 'neither'
  throw new ModelError(
    `${folder}: expected ${SINGLE} or ${INDEX}, the only format of weights built yet; found ${found}`,
  )
}

function byName(tensors: StoredTensor[]): Map<string, StoredTensor> {
  return new Map(tensors.map((tensor) => [tensor.name, tensor]))
}
