// A chat → text to encode. What a chat's user writes never becomes a control token.

import { ApiError } from '../errors.js'
import type { Tokenizer } from '../models/tokenizer.js'
import { trimEnd, trimStart } from './jinja/space.js'
import type { ChatMessage, ChatTemplate, RenderOptions } from './template.js'

/** A rendered chat, and its UTF-16 ranges, in order, where the name of a special token is text like any other. */
export interface RenderedChat {
  text: string
  plain: [start: number, end: number][]
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
 * The template's own special tokens count; the same text inside a message is plain text: it passes through the template as a
 * private-use character that nothing else uses.
 * @param specials from specialTexts
 */
export async function renderChat(
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  specials: readonly string[],
  options: RenderOptions = {},
): Promise<RenderedChat> {
  const { variables = {}, continueFinalMessage = false } = options
  const unused = unusedCharacters([messages, variables])
  const placeholders = new Map<string, string>()
  const pattern = new RegExp(specials.map((special) => special.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|'), 'g')
  const hide = (text: string) => {
    if (specials.length === 0) return text
    return text.replace(pattern, (special) => {
      let placeholder = placeholders.get(special)
      if (placeholder === undefined) {
        placeholder = unused()
        placeholders.set(special, placeholder)
      }
      return placeholder
    })
  }
  const hidden = messages.map((message) => ({
    ...message,
    content: hide(message.content),
    ...(message.name === undefined ? {} : { name: hide(message.name) }),
  }))
  const hiddenOptions = {
    ...options,
    variables: Object.fromEntries(
      Object.entries(variables).map(([name, value]) => [name, typeof value === 'string' ? hide(value) : value]),
    ),
  }
  const rendered = continueFinalMessage
    ? await renderToContinue(template, hidden, hiddenOptions, unused())
    : await template.render(hidden, hiddenOptions)
  return putBack(rendered, new Map(Array.from(placeholders, ([special, placeholder]) => [placeholder, special])))
}

/** Gives private-use characters that are nowhere in what a request wrote. */
function unusedCharacters(written: unknown): () => string {
  let used: Set<string> | null = null
  let code = 0xe000
  return () => {
    used ??= new Set(JSON.stringify(written).match(/[\ue000-\uf8ff]/g))
    while (used.has(String.fromCharCode(code))) code++
    if (code > 0xf8ff)
      throw new ApiError('invalid_value', "'messages' use too many private-use characters.", 'messages')
    return String.fromCharCode(code++)
  }
}

/** @param specials by their placeholders */
function putBack(rendered: string, specials: ReadonlyMap<string, string>): RenderedChat {
  if (specials.size === 0) return { text: rendered, plain: [] }
  const plain: RenderedChat['plain'] = []
  let text = ''
  for (const part of rendered.split(new RegExp(`([${[...specials.keys()].join('')}])`))) {
    const special = specials.get(part)
    if (special !== undefined) plain.push([text.length, text.length + special.length])
    text += special ?? part
  }
  return { text, plain }
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
