// What a checkpoint says about generating: where a completion ends, and the sampling its makers suggest.

import type { Fields } from './fields.js'
import type { Model } from './model.js'
import type { Tokenizer } from './tokenizer.js'

/**
 * Ids that end a completion: those of generation_config.json and the tokenizer's EOS, as in vLLM. Without generation_config.json those of
 * config.json, of which only special tokens count where the tokenizer has an EOS: GPT-NeoX-20B's names a punctuation mark.
 */
export function stopTokenIds(generation: Fields | null, config: Fields, tokenizer: Tokenizer): number[] {
  const own = eosOf(tokenizer)
  const named =
    generation?.tokenIds('eos_token_id') ??
    (config.tokenIds('eos_token_id') ?? []).filter((id) => own.length === 0 || tokenizer.isSpecial(id))
  return [...new Set([...named, ...own])]
}

function eosOf(tokenizer: Tokenizer): number[] {
  if (tokenizer.eosToken === null) return []
  const ids = tokenizer.encode(tokenizer.eosToken, { addSpecialTokens: false, allowSpecial: true })
  return ids.length === 1 ? ids : []
}

/** Defaults of generation_config.json, in the ranges of native/contract.def: those that vLLM takes. do_sample is not one of them. */
export function generationDefaults(generation: Fields | null): Model['generationDefaults'] {
  return {
    ...(generation?.has('temperature') && { temperature: generation.real('temperature', 0, 100) }),
    ...(generation?.has('top_p') && { top_p: generation.real('top_p', 0, 1) }),
    ...(generation?.has('top_k') && { top_k: Math.max(0, generation.int('top_k', -1, 4194304)) }),
    ...(generation?.has('min_p') && { min_p: generation.real('min_p', 0, 1) }),
    ...(generation?.has('repetition_penalty') && {
      repetition_penalty: generation.real('repetition_penalty', 1e-3, 1000),
    }),
    ...(generation?.has('max_new_tokens') && { max_tokens: generation.int('max_new_tokens', 1, 2 ** 31 - 1) }),
  }
}
