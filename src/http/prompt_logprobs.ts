// prompt_logprobs, in vLLM's shape: for each token of the prompt an object of token ids.

import type { ShownPrompt } from '../generation/prompt_logprobs.js'
import { tokenName } from './legacy_logprobs.js'

export interface PromptLogprob {
  logprob: number
  /** how many tokens are at least as probable, itself among them */
  rank: number
  decoded_token: string
}

/** One entry for each token: null for the first, which follows nothing; the others' hold the token itself and the most probable ones. */
export type PromptLogprobs = (Record<string, PromptLogprob> | null)[]

/** @param numTop most probable tokens beside each, at most */
export function showPromptLogprobs({ tokens }: ShownPrompt, numTop: number): PromptLogprobs {
  return tokens.map((token) => {
    const { id, logprob, rank, top } = token
    if (logprob === null || rank === null) return null
    const shown: Record<string, PromptLogprob> = {}
    for (const [i, other] of (top ?? []).slice(0, numTop).entries()) {
      shown[other.id] = { logprob: other.logprob, rank: i + 1, decoded_token: tokenName(other, false) }
    }
    shown[id] = { logprob, rank, decoded_token: tokenName(token, false) }
    return shown
  })
}
