// Log-probabilities in the shape of /v1/completions: four lists, one entry for each token, of an echoed prompt too.

import type { ShownChoice, ShownToken } from '../generation/logprobs.js'
import type { ShownPromptToken } from '../generation/prompt_logprobs.js'
import { spelled } from './answer.js'

export interface LegacyLogprobs {
  /** where the token begins, in code points of the choice's text */
  text_offset: number[]
  /** null: the first token of an echoed prompt, which follows nothing, and the token for which there was no place */
  token_logprobs: (number | null)[]
  tokens: string[]
  /** the token itself is always among them */
  top_logprobs: (Record<string, number> | null)[]
}

export function emptyLogprobs(): LegacyLogprobs {
  return { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] }
}

/**
 * @param numTop most probable tokens beside each of `tokens`, at most
 * @param namesAreIds tokens are called token_id:<id> instead of by their text
 */
export function addTokens(
  logprobs: LegacyLogprobs,
  tokens: readonly (ShownChoice | ShownPromptToken)[],
  numTop: number,
  namesAreIds: boolean,
): void {
  for (const token of tokens) {
    logprobs.text_offset.push(token.offset)
    logprobs.token_logprobs.push(token.logprob)
    logprobs.tokens.push(tokenName(token, namesAreIds))
    logprobs.top_logprobs.push(isFirst(token) ? null : topOf(token, numTop, namesAreIds))
  }
}

function isFirst(token: ShownChoice | ShownPromptToken): token is ShownPromptToken & { logprob: null } {
  return token.logprob === null
}

function topOf(token: ShownChoice | ShownPromptToken, numTop: number, namesAreIds: boolean): Record<string, number> {
  // Two ids with one text share a key: the more probable one stays. Best first, so the earlier wins.
  const top: Record<string, number> = Object.create(null)
  for (const other of [...(token.top ?? []).slice(0, numTop), token as ShownToken]) {
    top[tokenName(other, namesAreIds)] ??= other.logprob
  }
  return top
}

/**
 * The entry of a completion's only token where the prompt has filled the context: the lists keep the length that clients count on.
 * @param offset the code points of the text before
 */
export function addNoToken(logprobs: LegacyLogprobs, offset: number): void {
  logprobs.text_offset.push(offset)
  logprobs.token_logprobs.push(null)
  logprobs.tokens.push('')
  logprobs.top_logprobs.push(null)
}

/** A token as the legacy API names it: bytes that are no whole characters are spelled out. */
export function tokenName(token: Pick<ShownToken, 'id' | 'bytes' | 'text'>, namesAreIds: boolean): string {
  if (namesAreIds) return `token_id:${token.id}`
  return token.text ?? `bytes:${spelled(token)}`
}
