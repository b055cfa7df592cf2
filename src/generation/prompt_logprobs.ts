// A prompt as answers show it: its text and tokens, with what the model thought of them.

import type { PromptLogprobs } from '../engine/engine.js'
import type { Tokenizer } from '../models/tokenizer.js'
import { countCodePoints, Detokenizer } from './detokenizer.js'
import { type ShownToken, show } from './logprobs.js'

/** A token of a prompt. */
export interface ShownPromptToken extends Omit<ShownToken, 'logprob'> {
  /** null for the first token, which follows nothing */
  logprob: number | null
  /** how many tokens were at least as probable, itself among them; null for the first token */
  rank: number | null
  /** the most probable tokens in its place, best first; null for the first token */
  top: ShownToken[] | null
  /** where the token's first character begins, in Unicode code points of the text */
  offset: number
}

export interface ShownPrompt {
  text: string
  /** none unless log-probabilities were asked for */
  tokens: ShownPromptToken[]
}

/**
 * @param original the text that the ids were made of, if they were: it may hold characters that the tokenizer normalizes, and lacks
 * the special tokens that the tokenizer put around it
 */
export function showPrompt(
  tokenizer: Tokenizer,
  ids: Int32Array,
  original: string | null,
  logprobs: PromptLogprobs | undefined,
): ShownPrompt {
  const detokenizer = new Detokenizer(tokenizer)
  const offsets: number[] = []
  let text = ''
  let offset = 0
  for (const id of ids) {
    offsets.push(offset)
    const piece = detokenizer.push(id)
    if (original !== null && tokenizer.isSpecial(id) && !original.startsWith(piece, text.length)) continue
    text += piece
    offset += countCodePoints(piece)
  }
  text += detokenizer.end()
  if (original !== null) {
    const end = countCodePoints(original)
    for (const [i, place] of offsets.entries()) offsets[i] = Math.min(place, end)
  }
  return {
    text: original ?? text,
    tokens: logprobs ? Array.from(ids, (id, i) => showToken(tokenizer, id, i, offsets[i] ?? 0, logprobs)) : [],
  }
}

function showToken(tokenizer: Tokenizer, id: number, i: number, offset: number, all: PromptLogprobs): ShownPromptToken {
  const { bytes, text, logprob } = show(tokenizer, id, all.logprobs[i - 1] ?? 0)
  if (i === 0) return { id, bytes, text, logprob: null, rank: null, top: null, offset }
  const numTop = all.top_tokens.length / all.logprobs.length
  const top: ShownToken[] = []
  for (let at = (i - 1) * numTop; at < i * numTop; at++) {
    top.push(show(tokenizer, all.top_tokens[at] ?? 0, all.top_logprobs[at] ?? 0))
  }
  return { id, bytes, text, logprob, rank: all.ranks[i - 1] ?? 0, top, offset }
}
