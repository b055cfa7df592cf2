// What a checkpoint says about generating: where a completion ends, and the sampling its makers suggest.

import type { Fields } from './fields.js'
import type { Model } from './model.js'
import type { Tokenizer } from './tokenizer.js'

/** Ids that end a completion: generation_config.json's, else config.json's, else the tokenizer's EOS. */
export function stopTokenIds(generation: Fields | null, config: Fields, tokenizer: Tokenizer): number[] {
  const named = generation?.tokenIds('eos_token_id') ?? config.tokenIds('eos_token_id')
  if (named !== undefined) return [...new Set(named)]
  if (tokenizer.eosToken === null) return []
  const ids = tokenizer.encode(tokenizer.eosToken, { addSpecialTokens: false, allowSpecial: true })
  return ids.length === 1 ? ids : []
}

/** Sampling defaults of generation_config.json, in the ranges of native/contract.def. */
export function generationDefaults(generation: Fields | null): Model['generationDefaults'] {
  return {
    ...(generation?.has('temperature') && { temperature: generation.real('temperature', 0, 100) }),
    ...(generation?.has('top_p') && { top_p: generation.real('top_p', 0, 1) }),
    ...(generation?.has('top_k') && { top_k: generation.int('top_k', 0, 4194304) }),
    ...(generation?.has('min_p') && { min_p: generation.real('min_p', 0, 1) }),
  }
}
