// A request's input → pieces of text that are encoded one by one. What a chat's user writes never becomes a control token.

import type { Tokenizer } from '../models/tokenizer.js'
import type { ChatMessage, ChatTemplate } from './template.js'

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
export function chatPieces(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  specials: readonly string[],
): Piece[] {
  const written = messages.map((message) => `${message.content}${message.name ?? ''}`).join('')
  const found = specials.filter((special) => written.includes(special))
  if (found.length === 0) return [{ text: template.render(messages), allowSpecial: true }]
  const placeholders = new Map<string, string>()
  let code = 0xe000
  for (const special of found) {
    while (written.includes(String.fromCharCode(code)) && code < 0xf8ff) code++
    placeholders.set(String.fromCharCode(code++), special)
  }
  const hide = (text: string) => {
    let hidden = text
    for (const [placeholder, special] of placeholders) hidden = hidden.replaceAll(special, placeholder)
    return hidden
  }
  const rendered = template.render(
    messages.map((message) => ({
      ...message,
      content: hide(message.content),
      ...(message.name === undefined ? {} : { name: hide(message.name) }),
    })),
  )
  return rendered
    .split(new RegExp(`([${[...placeholders.keys()].join('')}])`))
    .filter((part) => part !== '')
    .map((part) => {
      const special = placeholders.get(part)
      return special === undefined ? { text: part, allowSpecial: true } : { text: special, allowSpecial: false }
    })
}
