// Texts and ids that are only read, such as those of embeddings → token ids that fit into the context.

import { ApiError } from '../errors.js'
import type { Prompts } from './prompts.js'
import type { Prompt } from './request.js'

export interface InputOptions {
  /** only the last so many tokens of an input count; -1: as many as fit */
  truncate_prompt_tokens?: number | undefined
  /** false: nothing is put around a text, such as BOS */
  add_special_tokens?: boolean | undefined
}

/**
 * @param limit tokens of an input, at most
 * @throws ApiError when an input is empty, too long or not this model's
 */
export function encodeInputs(
  prompts: Prompts,
  limit: number,
  inputs: readonly Prompt[],
  { truncate_prompt_tokens, add_special_tokens = true }: InputOptions,
  signal: AbortSignal,
): Promise<Int32Array[]> {
  const isCut = truncate_prompt_tokens !== undefined
  const kept = truncate_prompt_tokens === -1 ? limit : truncate_prompt_tokens
  return Promise.all(
    inputs.map(async (input) => {
      const ids =
        typeof input === 'string'
          ? await prompts.text(input, add_special_tokens, isCut, signal, 'input')
          : prompts.ids(input, 'input')
      const end = kept === undefined ? ids : ids.subarray(Math.max(0, ids.length - kept))
      checkLength(end, limit, 'input')
      return end
    }),
  )
}

/** @throws ApiError unless the ids fit */
export function checkLength(ids: Int32Array, limit: number, param: string): void {
  if (ids.length <= limit) return
  throw new ApiError(
    'context_length_exceeded',
    `This model's maximum context length is ${limit} tokens. There are ${ids.length} tokens in your ${param}. Please shorten the ${param}.`,
    param,
  )
}
