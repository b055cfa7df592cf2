// A model's chat template: messages → the text that the model was trained on.

import { Template } from '@huggingface/jinja'
import { ApiError } from '../errors.js'

/** A message as templates see it. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
  name?: string
}

/** How a chat becomes text, apart from its messages. */
export interface RenderOptions {
  /** the text ends where the assistant begins to speak; default true */
  addGenerationPrompt?: boolean
  /** the text ends with the last message's content, to be continued */
  continueFinalMessage?: boolean
  /** values for the template's own names, such as enable_thinking */
  variables?: Readonly<Record<string, string | number | boolean | null>>
}

/** Names that belong to the server: a request may not set them. */
const reserved = new Set(['messages', 'tools', 'documents', 'add_generation_prompt', 'continue_final_message'])

/** A compiled template, in the environment of transformers: trim_blocks, lstrip_blocks, tojson, raise_exception, strftime_now. */
export class ChatTemplate {
  readonly #template: Template
  readonly #specialTokens: Record<string, string>
  readonly #names: ReadonlySet<string>

  /**
   * @param source Jinja
   * @param specialTokens such as bos_token and eos_token; those that a model lacks are left out
   * @throws Error where the source is no Jinja that the library knows
   */
  constructor(source: string, specialTokens: Record<string, string>) {
    this.#template = new Template(source)
    this.#specialTokens = specialTokens
    this.#names = new Set(source.match(/[A-Za-z_]\w*/g))
  }

  /** Does the template use this name, and may a request set it? */
  knows(name: string): boolean {
    return this.#names.has(name) && !reserved.has(name) && !/_token$/.test(name)
  }

  /** @throws ApiError with what the template complains of, such as roles that do not alternate */
  render(messages: readonly ChatMessage[], options: RenderOptions = {}): string {
    try {
      return this.#template.render({
        ...options.variables,
        ...this.#specialTokens,
        messages: messages.map((message) => ({ ...message })),
        add_generation_prompt: options.addGenerationPrompt ?? true,
        tools: null,
        documents: null,
      })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      throw new ApiError(
        'chat_template_failed',
        `The model's chat template refuses these messages: ${reason}`,
        'messages',
      )
    }
  }
}
