// A model's chat template: messages → the text that the model was trained on.

import { ApiError } from '../errors.js'
import { BudgetError, TemplateError } from './jinja/jinja.js'
import { Renderer } from './renderer.js'

/** A message as templates see it. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
  name?: string
}

/** What a request calls its fields, for messages about them. */
export interface ChatFieldNames {
  messages: string
  reasoning_effort: string
}

/** Those of /v1/chat/completions. */
export const chatFieldNames: ChatFieldNames = { messages: 'messages', reasoning_effort: 'reasoning_effort' }

/** How a chat becomes text, apart from its messages. */
export interface RenderOptions {
  /** Jinja in place of the model's template */
  template?: string | undefined
  /** the text ends where the assistant begins to speak; default true */
  addGenerationPrompt?: boolean
  /** the text ends with the last message's content, to be continued */
  continueFinalMessage?: boolean
  /** values for the template's own names, such as enable_thinking */
  variables?: Readonly<Record<string, string | number | boolean | null>>
  /** default chatFieldNames */
  names?: ChatFieldNames
}

/** Names that belong to the server: a request may not set them. */
const reserved = new Set([
  ...['messages', 'tools', 'documents', 'add_generation_prompt', 'continue_final_message', 'loop'],
  ...['raise_exception', 'strftime_now', 'range', 'namespace', 'dict', 'joiner'],
])

/** A compiled template, which renders as transformers' apply_chat_template does. */
export class ChatTemplate {
  readonly #renderer: Renderer
  readonly #specialTokens: Record<string, string>

  /**
   * @param source Jinja
   * @param specialTokens such as bos_token and eos_token; those that a model lacks are left out
   * @param threadFile see Renderer
   * @param now the time that strftime_now shows
   * @throws TemplateError where the source is no Jinja that is supported
   */
  constructor(source: string, specialTokens: Record<string, string>, threadFile: URL | null = null, now?: () => Date) {
    this.#renderer = new Renderer(source, threadFile, now)
    this.#specialTokens = specialTokens
  }

  /** Does the template use this name, and may a request set it? */
  knows(name: string): boolean {
    return this.#renderer.names.has(name) && !reserved.has(name) && !/_token$/.test(name)
  }

  /** Ends the thread, if one has begun. */
  close(): Promise<void> {
    return this.#renderer.close()
  }

  /** @throws ApiError with what the template complains of, such as roles that do not alternate, or why it was stopped */
  async render(messages: readonly ChatMessage[], options: RenderOptions = {}): Promise<string> {
    const variables = {
      ...this.#specialTokens,
      ...options.variables,
      messages,
      tools: null,
      documents: null,
      add_generation_prompt: options.addGenerationPrompt ?? true,
    }
    try {
      return await this.#renderer.render(variables)
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error
      const what = error instanceof BudgetError ? 'was stopped' : 'refuses these messages'
      throw new ApiError(
        'chat_template_failed',
        `The ${options.template === undefined ? "model's" : "request's"} chat template ${what}: ${error.message}`,
        (options.names ?? chatFieldNames).messages,
      )
    }
  }
}
