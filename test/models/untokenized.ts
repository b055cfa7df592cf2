// A checkpoint as the engine takes it, without its tokenizer, which has no part in the numbers.

import { join } from 'node:path'
import { architectureOf } from '../../src/models/architectures.js'
import { readCheckpoint } from '../../src/models/checkpoint.js'
import { requireJson } from '../../src/models/folder.js'
import { findSources } from '../../src/models/sources.js'

/** Spec and tensors of the folder; every id of the vocabulary can be sampled. */
export async function loadUntokenized(folder: string): ReturnType<typeof findSources> {
  const config = await requireJson(join(folder, 'config.json'), 'a config')
  const { row } = architectureOf(config)
  const spec = row.spec(config)
  return findSources(row, config, { ...spec, num_sampled_ids: spec.vocab_size }, await readCheckpoint(folder))
}
