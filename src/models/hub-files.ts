// Which files of a repository a model needs: config, tokenizer, chat template, and one format of weights.

import { list, ModelError } from './model-error.js'

/** Only names without a folder; whatever else a hub lists is no business of ours, and cannot lead out of the cache. */
const small =
  /^(?:config\.json|generation_config\.json|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template\.(?:jinja|json)|[\w-][\w.-]{0,99}\.model)$/

/** The best format first; a single file goes before an index, as it does in transformers. */
const weightFiles = [
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
] as const

/** The small files among the names of a repository. */
export function smallFiles(names: readonly string[]): string[] {
  return names.filter((name) => small.test(name))
}

/** The file of weights, or the index of several. @throws ModelError when there is none that Parley reads */
export function weightsOf(repo: string, names: readonly string[]): { name: string; isIndex: boolean } {
  const name = weightFiles.find((candidate) => names.includes(candidate))
  if (name !== undefined) return { name, isIndex: name.endsWith('.index.json') }
  const others = names.filter((other) => /\.(?:safetensors|bin|pt|pth|ckpt|gguf|h5|msgpack|onnx|ot)$/.test(other))
  throw new ModelError(
    `${repo}: expected weights as model.safetensors or pytorch_model.bin, in one file or with an index; found ${others.length > 0 ? list(others, 4) : 'no weights'}`,
  )
}

/**
 * The shards that an index names.
 * @param source what to call the index in errors
 * @throws ModelError for a name that is no file beside the index
 */
export function shardsOf(source: string, index: string): string[] {
  let map: unknown
  try {
    map = (JSON.parse(index) as { weight_map?: unknown } | null)?.weight_map
  } catch {
    throw new ModelError(`${source}: expected JSON, found other text`)
  }
  if (typeof map !== 'object' || map === null) throw new ModelError(`${source}: expected a weight_map, found none`)
  const shards = [...new Set(Object.values(map))]
  for (const shard of shards) {
    if (typeof shard === 'string' && /^[\w-][\w.-]{0,199}\.(?:safetensors|bin)$/.test(shard)) continue
    throw new ModelError(
      `${source}: weight_map: expected names of .safetensors or .bin files beside it, found ${JSON.stringify(shard)?.slice(0, 100)}`,
    )
  }
  return shards as string[]
}
