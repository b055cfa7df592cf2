// What a request says → token ids: rendered, checked, encoded; and ids back to text.

import { ApiError } from '../errors.js'
import type { Model } from '../models/model.js'
import { Detokenizer } from './detokenizer.js'
import type { Encoder } from './encoder.js'
import { TemplateError } from './jinja/jinja.js'
import { type RenderedChat, renderChat, specialTexts } from './prompt.js'
import { type ChatMessage, ChatTemplate, chatFieldNames, type RenderOptions } from './template.js'

/** A text of which some parts come from strangers: what looks like a special token in those is plain text. */
export type Parts = readonly (string | { untrusted: string })[]

export class Prompts {
  readonly #model: Model
  readonly #encoder: Encoder
  readonly #maxModelLen: number
  readonly #specials: string[]
  readonly #renderThread: URL | null
  readonly #trustsTemplates: boolean
  readonly #template: ChatTemplate | null = null
  /** Why the model's chat template cannot be used, or null when it can or the model has none. */
  readonly templateProblem: string | null = null

  /**
   * @param renderThread compiled render_thread.js, or null to render every chat in this thread
   * @param trustsTemplates requests may bring their own
   */
  constructor(model: Model, encoder: Encoder, maxModelLen: number, renderThread: URL | null, trustsTemplates: boolean) {
    this.#renderThread = renderThread
    this.#trustsTemplates = trustsTemplates
    this.#model = model
    this.#encoder = encoder
    this.#maxModelLen = maxModelLen
    this.#specials = specialTexts(model.tokenizer)
    if (model.chatTemplate === null) return
    try {
      this.#template = new ChatTemplate(model.chatTemplate, model.templateTokens, renderThread)
    } catch (error) {
      this.templateProblem = error instanceof Error ? error.message : String(error)
    }
  }

  get hasTemplate(): boolean {
    return this.#template !== null
  }

  /**
   * Ids of a text; of an empty one BOS.
   * @param addSpecialTokens add what the tokenizer puts around a text, such as BOS
   * @param truncated the ids will be cut to what fits, so that a text may be longer
   * @param param the request's field, for messages
   * @throws ApiError when nothing is left to continue, or the text cannot fit
   */
  async text(
    text: string,
    addSpecialTokens: boolean,
    truncated: boolean,
    signal?: AbortSignal,
    param = 'prompt',
  ): Promise<Int32Array> {
    if (text === '') {
      const { bosTokenId } = this.#model.tokenizer
      if (bosTokenId === null || !addSpecialTokens) throw emptyPrompt(param)
      return Int32Array.of(bosTokenId)
    }
    const maxTokens = truncated ? undefined : this.#longest
    const tokens = await this.#encoder.encode(text, { addSpecialTokens, allowSpecial: true, maxTokens }, signal)
    if (!truncated) this.#checkLength(tokens, param)
    if (tokens.length === 0) throw emptyPrompt(param)
    return tokens
  }

  /** Ids of a text in parts. @throws ApiError when they cannot fit */
  async filled(parts: Parts, addSpecialTokens: boolean, signal: AbortSignal): Promise<Int32Array> {
    const plain: [start: number, end: number][] = []
    let text = ''
    for (const part of parts) {
      const start = text.length
      text += typeof part === 'string' ? part : part.untrusted
      if (typeof part !== 'string') plain.push([start, text.length])
    }
    const options = { addSpecialTokens, allowSpecial: true, plain, maxTokens: this.#longest }
    const ids = await this.#encoder.encode(text, options, signal)
    this.#checkLength(ids, 'documents')
    return ids
  }

  /**
   * Ids that are taken as they are.
   * @throws ApiError when there are none or the model does not have one of them
   */
  ids(ids: readonly number[], param = 'prompt'): Int32Array {
    const { vocab_size } = this.#model.spec
    const wrong = ids.find((id) => id >= vocab_size)
    if (wrong !== undefined) {
      throw new ApiError(
        'integer_above_max_value',
        `'${param}' holds the token id ${wrong}; this model's ids end at ${vocab_size - 1}.`,
        param,
      )
    }
    if (ids.length === 0) throw emptyPrompt(param)
    return Int32Array.from(ids)
  }

  /**
   * Ids of a rendered chat.
   * @throws ApiError when the model has no chat template, the template refuses the messages, or they cannot fit
   */
  async chat(
    messages: readonly ChatMessage[],
    options: RenderOptions,
    addSpecialTokens: boolean,
    truncated: boolean,
    signal?: AbortSignal,
  ): Promise<Int32Array> {
    const { text, plain } = await this.#render(messages, options)
    const maxTokens = truncated ? undefined : this.#longest
    const tokens = await this.#encoder.encode(text, { addSpecialTokens, allowSpecial: true, plain, maxTokens }, signal)
    if (!truncated) this.#checkLength(tokens, (options.names ?? chatFieldNames).messages)
    return tokens
  }

  /** The text that a chat becomes. @throws ApiError as chat does */
  async render(messages: readonly ChatMessage[], options: RenderOptions): Promise<string> {
    return (await this.#render(messages, options)).text
  }

  /** Ids of a text with nothing around it unless asked, however long it is; none of an empty one. */
  encode(text: string, addSpecialTokens: boolean, signal?: AbortSignal): Promise<Int32Array> {
    return this.#encoder.encode(text, { addSpecialTokens, allowSpecial: true }, signal)
  }

  /** Ids of words that may not come: of each, and where they differ also of the word behind a space, as vLLM's bad_words has them. */
  async badWords(words: readonly string[], signal?: AbortSignal): Promise<Int32Array[]> {
    const encode = (text: string) => this.#encoder.encode(text, { addSpecialTokens: false }, signal)
    const found: Int32Array[] = []
    for (const word of words) {
      const alone = await encode(word.trimStart())
      const behindSpace = await encode(` ${word.trimStart()}`)
      const differs = behindSpace[0] !== alone[0] && behindSpace.length === alone.length
      found.push(...(differs ? [alone, behindSpace] : [alone]).filter((ids) => ids.length > 0))
    }
    return found
  }

  /** The text of ids, names of special tokens included. */
  decode(ids: Iterable<number>): string {
    const detokenizer = new Detokenizer(this.#model.tokenizer)
    let text = ''
    for (const id of ids) text += detokenizer.push(id)
    return text + detokenizer.end()
  }

  /** What a token adds to a text that has begun. */
  tokenText(id: number): string {
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(this.#model.tokenizer.tokenBytes(id))
  }

  /** What clients ask of a tokenizer. */
  tokenizerFacts() {
    const { tokenizer, chatTemplate } = this.#model
    const { bosToken, eosToken } = tokenizer
    const addsSpecialTokens = tokenizer.encode('', { addSpecialTokens: true }).length > 0
    return { bosToken, eosToken, addsSpecialTokens, chatTemplate }
  }

  async #render(messages: readonly ChatMessage[], options: RenderOptions): Promise<RenderedChat> {
    if (options.template === undefined) return this.#renderBy(this.#template, messages, options)
    const template = this.#requestTemplate(options.template)
    try {
      return await this.#renderBy(template, messages, options)
    } finally {
      await template.close()
    }
  }

  /** A template that came with a request. @throws ApiError when it may not, or is none */
  #requestTemplate(source: string): ChatTemplate {
    const param = 'chat_template'
    if (!this.#trustsTemplates) {
      throw new ApiError(
        'unsupported_parameter',
        "'chat_template' is only taken where the server was started with --trust-request-chat-template. Leave it out.",
        param,
      )
    }
    try {
      return new ChatTemplate(source, this.#model.templateTokens, this.#renderThread)
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error
      throw new ApiError('chat_template_failed', `'chat_template' cannot be used: ${error.message}`, param)
    }
  }

  #renderBy(
    template: ChatTemplate | null,
    messages: readonly ChatMessage[],
    options: RenderOptions,
  ): Promise<RenderedChat> {
    if (template === null) {
      throw new ApiError(
        'chat_template_missing',
        `${
          this.templateProblem === null
            ? 'This model has no chat template, so it cannot answer chats.'
            : `This model's chat template cannot be used (${this.templateProblem}).`
        } Start the server with --chat-template <file>, builtin:plain or builtin:chatml, or use /v1/completions.`,
      )
    }
    const unknown = Object.keys(options.variables ?? {}).find((name) => !template.knows(name))
    if (unknown === 'reasoning_effort') {
      const name = (options.names ?? chatFieldNames).reasoning_effort
      throw new ApiError(
        'unsupported_parameter',
        `'${name}' is not supported by this model: its chat template does not use it. Leave it out.`,
        name,
      )
    }
    if (unknown !== undefined) {
      throw new ApiError(
        'unsupported_value',
        `'chat_template_kwargs' names '${unknown.slice(0, 60)}', which ${options.template === undefined ? "this model's" : "the request's"} chat template does not use.`,
        'chat_template_kwargs',
      )
    }
    return renderChat(template, messages, this.#specials, options)
  }

  /** More tokens than these no request can have: one behind the context may be scored. */
  get #longest(): number {
    return this.#maxModelLen + 1
  }

  /** Of a text that is too long only the beginning was encoded. */
  #checkLength(tokens: Int32Array, param: string): void {
    if (tokens.length <= this.#longest) return
    throw new ApiError(
      'context_length_exceeded',
      `This model's maximum context length is ${this.#maxModelLen} tokens. There are at least ${tokens.length} tokens in your ${param}. Please shorten the ${param}.`,
      param,
    )
  }
}

function emptyPrompt(param: string): ApiError {
  return new ApiError('invalid_value', `'${param}' is empty. This model needs at least one token to continue.`, param)
}
