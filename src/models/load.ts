// A folder in Hugging Face's layout becomes a Model, or one line that says why not.

import { stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { architectureOf } from './architectures.js'
import { readChatTemplate } from './chat-template.js'
import { readCheckpoint } from './checkpoint.js'
import { checkFolder, readJson, requireJson } from './folder.js'
import { generationDefaults, stopTokenIds } from './generation-config.js'
import type { Model } from './model.js'
import { countParameters, outlineOf } from './outline.js'
import { findSources } from './sources.js'
import { loadTokenizer, type Tokenizer } from './tokenizer.js'

export { ModelError } from './model-error.js'

/**
 * Reads everything of a model folder but the weights' numbers.
 * @param readTokenizer reads its tokenizer
 * @throws ModelError, one line, for every folder that cannot be served
 */
export async function loadModel(
  path: string,
  readTokenizer: (folder: string) => Promise<Tokenizer> = loadTokenizer,
): Promise<Model> {
  await checkFolder(path)
  const folder = resolve(path)
  const config = await requireJson(join(folder, 'config.json'), 'a Hugging Face model config')
  const generation = await readJson(join(folder, 'generation_config.json'))
  const outline = outlineOf(config)
  const { row } = architectureOf(config)
  const wanted = outline.spec
  const checkpoint = await readCheckpoint(folder)
  const tokenizer = await readTokenizer(folder)
  const num_sampled_ids = Math.min(tokenizer.size, wanted.vocab_size)
  const { spec, tensors, files, dtype, warnings } = await findSources(
    row,
    config,
    { ...wanted, num_sampled_ids },
    checkpoint,
  )
  if (tokenizer.size > wanted.vocab_size) {
    warnings.push(
      `${config.file}: vocab_size is ${wanted.vocab_size}, but the tokenizer has ids up to ${tokenizer.size - 1}`,
    )
  }
  const chat = await readChatTemplate(folder, tokenizer)
  return {
    name: basename(folder),
    folder,
    created: await newest(files),
    ...outline,
    ...countParameters(row, config, spec),
    spec,
    checkpointDtype: dtype,
    tensors,
    files,
    tokenizer,
    chatTemplate: chat.chatTemplate,
    templateTokens: chat.templateTokens,
    stopTokenIds: stopTokenIds(generation, config, tokenizer),
    generationDefaults: generationDefaults(generation),
    warnings: [...warnings, ...chat.warnings],
  }
}

/** Seconds since 1970 of the newest file. */
async function newest(files: string[]): Promise<number> {
  const times = await Promise.all(files.map(async (file) => (await stat(file)).mtimeMs))
  return Math.floor(Math.max(0, ...times) / 1000)
}
