// `--chat-template` → a template that can be used, found out before a model is loaded for it.

import { flagOf, OptionError } from './config.js'
import { JinjaTemplate } from './generation/jinja/jinja.js'
import { builtinTemplate, builtinTemplates } from './models/builtin-templates.js'
import { readText } from './models/folder.js'
import type { Tokenizer } from './models/tokenizer.js'

/**
 * @param value builtin:<name> or a file
 * @returns the template's source for a model's tokenizer
 * @throws OptionError for what is neither, or a file that holds no template
 */
export async function readTemplateOption(value: string): Promise<(tokenizer: Tokenizer) => string> {
  const flag = flagOf('chat_template')
  if (value.startsWith('builtin:')) {
    const name = value.slice('builtin:'.length)
    if (builtinTemplates.includes(name)) return (tokenizer) => builtinTemplate(name, tokenizer)
    const names = builtinTemplates.map((known) => `builtin:${known}`).join(' or ')
    throw new OptionError(`${flag}: expected a file, or ${names}, got ${JSON.stringify(value)}`)
  }
  const reason = (error: unknown) => (error instanceof Error ? error.message : String(error))
  const source = await readText(value).catch((error) => {
    throw new OptionError(`${flag}: ${reason(error)}`)
  })
  if (source === null) throw new OptionError(`${flag}: expected a file, or builtin:plain, found nothing at ${value}`)
  try {
    new JinjaTemplate(source)
  } catch (error) {
    throw new OptionError(`${flag}: ${value}: ${reason(error)}`)
  }
  return () => source
}
