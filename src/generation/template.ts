// A model's chat template: messages → the text that the model was trained on.

import { Template } from '@huggingface/jinja'
import { ApiError } from '../errors.js'

/** A message as templates see it. */
export interface ChatMessage {
  role: 'system' | 'user' | 'assistant'
  content: string
  name?: string
}

/** A compiled template, in the environment of transformers: trim_blocks, lstrip_blocks, tojson, raise_exception, strftime_now. */
export class ChatTemplate {
  readonly #template: Template
  readonly #specialTokens: Record<string, string>

  /**
   * @param source Jinja
   * @param specialTokens such as bos_token and eos_token; those that a model lacks are left out
   * @throws Error where the source is no Jinja that the library knows
   */
  constructor(source: string, specialTokens: Record<string, string>) {
    this.#template = new Template(source)
    this.#specialTokens = specialTokens
  }

  /** @throws ApiError with what the template complains of, such as roles that do not alternate */
  render(messages: readonly ChatMessage[]): string {
    try {
      return this.#template.render({
        ...this.#specialTokens,
        messages: messages.map((message) => ({ ...message })),
        add_generation_prompt: true,
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
