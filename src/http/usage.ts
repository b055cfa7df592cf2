// Tokens as answers count them.

import type { Delta, PreparedRequest } from '../generation/request.js'
import type { RequestRecord } from './context.js'

export interface Usage {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
  prompt_tokens_details: { cached_tokens: number }
  completion_tokens_details: { reasoning_tokens: number }
}

/**
 * All that was generated, as OpenAI counts it: what `best_of` did not choose too. Counts on, and keeps the log's record of the request
 * up to date.
 */
export class UsageCount {
  readonly #record: RequestRecord
  readonly #promptTokens: number
  readonly #choices: number
  #cachedTokens = 0
  #completionTokens = 0

  constructor(record: RequestRecord, prepared: PreparedRequest) {
    this.#record = record
    this.#promptTokens = prepared.num_prompt_tokens
    this.#choices = prepared.params.n
    record.prompt_tokens = this.#promptTokens
    record.completion_tokens = 0
  }

  add(delta: Delta): void {
    this.#completionTokens += delta.token_ids.length + (delta.discarded_tokens ?? 0)
    // A prompt counts once, whatever n is.
    if (delta.index % this.#choices === 0) this.#cachedTokens += delta.cached_tokens ?? 0
    this.#record.completion_tokens = this.#completionTokens
    if (delta.finish_reason !== null) this.#record.finish_reason = delta.finish_reason
  }

  get usage(): Usage {
    return {
      prompt_tokens: this.#promptTokens,
      completion_tokens: this.#completionTokens,
      total_tokens: this.#promptTokens + this.#completionTokens,
      prompt_tokens_details: { cached_tokens: this.#cachedTokens },
      completion_tokens_details: { reasoning_tokens: 0 },
    }
  }
}
