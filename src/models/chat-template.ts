// Where a checkpoint keeps its chat template, and what the template finds there.

import { join } from 'node:path'
import type { Fields } from './fields.js'
import { readJson, readText } from './folder.js'
import { tokenName, tokenRoles } from './tokenizer/token-names.js'
import type { Tokenizer } from './tokenizer.js'

/** A chat template and the special tokens by the names that templates have for them. */
export interface ChatTemplateFacts {
  /** Jinja source, or null for a base model. */
  chatTemplate: string | null
  /** Such as bos_token and eos_token; those that the model lacks are not there. */
  templateTokens: Record<string, string>
  warnings: string[]
}

/**
 * As transformers finds it: chat_template.jinja, or the one named 'default' of additional_chat_templates; else chat_template of
 * tokenizer_config.json, one or several by name; else that of chat_template.json, where processors had theirs.
 * @throws ModelError for a file that cannot be read
 */
export async function readChatTemplate(folder: string, tokenizer: Tokenizer): Promise<ChatTemplateFacts> {
  const config = await readJson(join(folder, 'tokenizer_config.json'))
  const warnings: string[] = []
  const chatTemplate =
    (await readText(join(folder, 'chat_template.jinja'))) ??
    (await readText(join(folder, 'additional_chat_templates', 'default.jinja'))) ??
    templateIn(config, warnings) ??
    templateIn(await readJson(join(folder, 'chat_template.json')), warnings)
  return { chatTemplate, templateTokens: await templateTokens(folder, config, tokenizer), warnings }
}

/** The key chat_template of a file. */
function templateIn(fields: Fields | null, warnings: string[]): string | null {
  if (fields === null || !Array.isArray(fields.raw('chat_template'))) return fields?.text('chat_template') ?? null
  const templates = fields.objects('chat_template')
  const names = templates.map((template) => template.text('name'))
  const found = templates[names.indexOf('default')]
  if (found === undefined) {
    warnings.push(
      `${fields.file}: chat_template: expected one named default, found ${names.join(', ') || 'none'}; give one with --chat-template`,
    )
  }
  return found?.text('template') ?? null
}

async function templateTokens(
  folder: string,
  config: Fields | null,
  { bosToken, eosToken }: Tokenizer,
): Promise<Record<string, string>> {
  const map = await readJson(join(folder, 'special_tokens_map.json'))
  const known: Record<string, string | null> = { bos_token: bosToken, eos_token: eosToken }
  const tokens = tokenRoles.map((role) => [role, known[role] ?? tokenName(config, role) ?? tokenName(map, role)])
  return Object.fromEntries(tokens.filter(([, token]) => token !== null))
}
