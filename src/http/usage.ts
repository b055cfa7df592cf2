// Tokens as answers count them.

import type { Delta, GenerationParams, PreparedRequest } from '../generation/request.js'
import type { Ctx } from './context.js'
import type { ValidChat, ValidCompletion } from './schema.js'

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
}

/** Counts on, and keeps the log's record of the request up to date. */
export class UsageCount {
  readonly #record
  readonly #promptTokens: number
  #completionTokens = 0

  constructor(c: Ctx, prepared: PreparedRequest) {
    this.#record = c.get('record')
    this.#promptTokens = prepared.num_prompt_tokens
    this.#record.prompt_tokens = this.#promptTokens
    this.#record.completion_tokens = 0
  }

  /** Each delta is one generated token. */
  add(delta: Delta): void {
    this.#record.completion_tokens = ++this.#completionTokens
    if (delta.finish_reason !== null) this.#record.finish_reason = delta.finish_reason
  }

  get usage(): Usage {
    return {
      prompt_tokens: this.#promptTokens,
      completion_tokens: this.#completionTokens,
      total_tokens: this.#promptTokens + this.#completionTokens,
    }
  }
}

/** The fields that both endpoints read alike. */
export function sharedParams(
  body: ValidCompletion | ValidChat,
): Omit<GenerationParams, 'max_tokens' | 'max_tokens_param' | 'num_logprobs'> {
  const { temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, seed, ignore_eos, logit_bias } = body
  return {
    ...{ temperature, top_p, top_k, min_p, presence_penalty, frequency_penalty, seed, ignore_eos, logit_bias },
    stop: body.stop ?? [],
    n: body.n ?? 1,
  }
}
