// Where a checkpoint keeps its chat template.

import { join } from 'node:path'
import type { Fields } from './fields.js'
import { readText } from './folder.js'

/** Jinja source of chat_template.jinja, else of tokenizer_config.json; null for a base model. */
export async function readChatTemplate(folder: string, tokenizerConfig: Fields | null): Promise<string | null> {
  const file = await readText(join(folder, 'chat_template.jinja'))
  if (file !== null) return file
  if (tokenizerConfig === null || !Array.isArray(tokenizerConfig.raw('chat_template'))) {
    return tokenizerConfig?.text('chat_template') ?? null
  }
  const templates = tokenizerConfig.objects('chat_template')
  return templates.find((template) => template.text('name') === 'default')?.text('template') ?? null
}
