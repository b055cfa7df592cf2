// A token with its log-probability and true bytes, as chats and responses show it.

import type { ShownChoice, ShownToken } from '../generation/logprobs.js'
import { spelled } from './answer.js'

export interface ChatToken {
  token: string
  logprob: number
  bytes: number[]
}

export interface ChatTokenChoice extends ChatToken {
  top_logprobs: ChatToken[]
}

/** @param namesAreIds tokens are called token_id:<id> instead of by their text */
export function showTokens(tokens: readonly ShownChoice[], namesAreIds = false): ChatTokenChoice[] {
  return tokens.map((token) => ({
    ...showToken(token, namesAreIds),
    top_logprobs: token.top.map((other) => showToken(other, namesAreIds)),
  }))
}

/** Where the bytes are no whole characters, the text spells them out as OpenAI does. */
function showToken(token: ShownToken, namesAreIds: boolean): ChatToken {
  return {
    token: namesAreIds ? `token_id:${token.id}` : (token.text ?? spelled(token)),
    logprob: token.logprob,
    bytes: Array.from(token.bytes),
  }
}
