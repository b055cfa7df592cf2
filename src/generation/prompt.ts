// A request's input → pieces of text that are encoded one by one. What a chat's user writes never becomes a control token.

import { ApiError } from '../errors.js'
import type { Tokenizer } from '../models/tokenizer.js'
import { trimEnd, trimStart } from './jinja/space.js'
import type { ChatMessage, ChatTemplate, RenderOptions } from './template.js'

/** Text to encode, and whether special-token text inside it means the special token. */
export interface Piece {
  text: string
  allowSpecial: boolean
}

/** Texts of the tokenizer's special tokens, longest first. */
export function specialTexts(tokenizer: Tokenizer): string[] {
  const texts: string[] = []
  const decoder = new TextDecoder()
  for (let id = 0; id < tokenizer.size; id++) {
    if (tokenizer.isSpecial(id)) texts.push(decoder.decode(tokenizer.tokenBytes(id)))
  }
  return texts.filter((text) => text !== '').sort((a, b) => b.length - a.length)
}

/**
 * The rendered chat in pieces. The template's own special tokens count; the same text inside a message is plain text: it passes
 * through the template as a private-use character that nothing else uses, and is put back as a piece of its own.
 * @param specials from specialTexts
 */
export async function chatPieces(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  specials: readonly string[],
  options: RenderOptions = {},
): Promise<Piece[]> {
  const { variables = {}, continueFinalMessage = false } = options
  const written = [
    ...messages.map(({ content, name = '' }) => content + name),
    ...Object.values(variables).filter((value) => typeof value === 'string'),
  ].join('')
  const found = specials.filter((special) => written.includes(special))
  if (found.length === 0 && !continueFinalMessage) {
    return [{ text: await template.render(messages, options), allowSpecial: true }]
  }
  let code = 0xe000
  const unusedCharacter = () => {
    while (written.includes(String.fromCharCode(code)) && code < 0xf8ff) code++
    return String.fromCharCode(code++)
  }
  const placeholders = new Map(found.map((special) => [unusedCharacter(), special]))
  const hide = <T>(value: T): T | string => {
    if (typeof value !== 'string') return value
    let hidden: string = value
    for (const [placeholder, special] of placeholders) hidden = hidden.replaceAll(special, placeholder)
    return hidden
  }
  const hidden = messages.map((message) => ({
    ...message,
    content: hide(message.content),
    ...(message.name === undefined ? {} : { name: hide(message.name) }),
  }))
  const hiddenOptions = {
    ...options,
    variables: Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, hide(value)])),
  }
  const rendered = continueFinalMessage
    ? await renderToContinue(template, hidden, hiddenOptions, unusedCharacter())
    : await template.render(hidden, hiddenOptions)
  if (placeholders.size === 0) return [{ text: rendered, allowSpecial: true }]
  return rendered
    .split(new RegExp(`([${[...placeholders.keys()].join('')}])`))
    .filter((part) => part !== '')
    .map((part) => {
      const special = placeholders.get(part)
      return special === undefined ? { text: part, allowSpecial: true } : { text: special, allowSpecial: false }
    })
}

/**
 * The text up to the end of the last message's content, as transformers' continue_final_message cuts it: a mark and a space follow the
 * content through the template; where the space is gone the template trims, and so does the text.
 * @param mark a character that is nowhere else
 */
async function renderToContinue(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options: RenderOptions,
  mark: string,
): Promise<string> {
  const marked = messages.map((message, i) =>
    i === messages.length - 1 ? { ...message, content: `${message.content}${mark} ` } : message,
  )
  const rendered = await template.render(marked, { ...options, addGenerationPrompt: false })
  const end = rendered.lastIndexOf(mark)
  const content = messages.at(-1)?.content ?? ''
  if (end < 0 || !rendered.includes(trimEnd(trimStart(content)))) {
    throw new ApiError(
      'chat_template_failed',
      "The model's chat template does not show the last message as it is, so it cannot be continued.",
      'continue_final_message',
    )
  }
  const text = rendered.slice(0, end)
  return rendered[end + 1] === ' ' ? text : trimEnd(text)
}
