// What a request asks of generation, and what it gets: the types that http and generation share.

import type { SamplingParams } from '../engine/contract.js'
import type { ShownChoice } from './logprobs.js'
import type { ShownPrompt } from './prompt_logprobs.js'

/** How the tokens of a request are chosen, as the request says it; undefined is the default. OpenAI's names. */
export interface GenerationParams {
  temperature?: number | undefined
  top_p?: number | undefined
  top_k?: number | undefined
  min_p?: number | undefined
  presence_penalty?: number | undefined
  frequency_penalty?: number | undefined
  repetition_penalty?: number | undefined
  seed?: number | undefined
  ignore_eos?: boolean | undefined
  /** token id → bias */
  logit_bias?: ReadonlyMap<number, number> | undefined
  /** no end before so many completion tokens */
  min_tokens?: number | undefined
  /** more ids that end a completion, beside the model's own */
  stop_token_ids?: readonly number[] | undefined
  /** the only tokens that may come */
  allowed_token_ids?: readonly number[] | undefined
  /** texts that may not come */
  bad_words?: readonly string[] | undefined
  /** tokens whose log-probabilities are shown in place of the most probable ones' */
  logprob_token_ids?: readonly number[] | undefined
  /** the text ends before any of these */
  stop: readonly string[]
  /** completions per prompt */
  n: number
  /** completions made of each prompt, of which the n best are given out; or beams of a beam search. undefined: n */
  best_of?: number | undefined
  /** the n best completions that a beam search finds, instead of n samples */
  use_beam_search?: boolean | undefined
  /** see BeamSearchOptions */
  length_penalty?: number | undefined
  early_stopping?: boolean | 'never' | undefined
  /** the prompt is given out before the completion, with as many log-probabilities */
  echo?: boolean | undefined
  /** most probable tokens shown beside each of the prompt's; undefined: with `echo` num_logprobs, else none about the prompt */
  num_prompt_logprobs?: number | undefined
  /** completion tokens, at most; 0: the prompt is all */
  max_tokens: number | undefined
  /** a max_tokens that does not fit becomes what fits */
  clamp_max_tokens?: boolean
  /** the request's field that said max_tokens, for messages */
  max_tokens_param: string
  /** most probable tokens shown beside each chosen one; undefined: no log-probabilities */
  num_logprobs: number | undefined
  /** the text ends behind the stop string instead of before it, and a stop token that is no special token shows its text */
  include_stop_str_in_output?: boolean | undefined
  /** false: special tokens show their names in the text */
  skip_special_tokens?: boolean | undefined
  /** only the last so many tokens of a prompt count; -1: as many as fit */
  truncate_prompt_tokens?: number | undefined
  /** false: nothing is put around a text prompt, such as BOS */
  add_special_tokens?: boolean | undefined
  /** who is served first and gives way last: the lower number, then the earlier request; undefined: 0 */
  priority?: number | undefined
  /** only requests with the same salt share cached prompts */
  cache_salt?: string | undefined
}

/** A prompt of the completions API: text, or ids that are taken as they are. */
export type Prompt = string | readonly number[]

/** A prompt's ids, and the text that they were made of; null where there was none, or the ids are only a part of it. */
export interface EncodedPrompt {
  ids: Int32Array
  text: string | null
}

/** A request that is ready for the engine. */
export interface PreparedRequest {
  prompts: Int32Array[]
  /** see EncodedPrompt */
  texts: (string | null)[]
  /** of all prompts together; a prompt counts once, whatever n is */
  num_prompt_tokens: number
  params: GenerationParams
  /** completion tokens, at most, for each prompt */
  max_tokens: number[]
  /** what does not depend on the prompt or the choice */
  sampling: Partial<SamplingParams>
  /** performance.now() of the request's arrival */
  arrived: number
}

/** What one token adds to a choice. All deltas of a choice together are the choice. */
export interface Delta {
  /** which choice: prompt * n + i */
  index: number
  /** may be '' */
  text: string
  /** tokens whose text has been given out by now, if log-probabilities were asked for */
  tokens: ShownChoice[]
  /** ids of the tokens that were generated, whether their text has been given out or not */
  token_ids: number[]
  /** log-probability of these tokens together; NaN unless log-probabilities were asked for, or best_of needed them */
  logprob: number
  /** on a choice's first delta, if the prefix cache spared some of its prompt: how many tokens */
  cached_tokens?: number
  /** on a prompt's first delta: tokens of completions that best_of has not chosen */
  discarded_tokens?: number
  /** on a choice's first delta, if the prompt is echoed or its log-probabilities were asked for */
  prompt?: ShownPrompt
  /** on a choice's last delta, and only there */
  finish_reason: 'stop' | 'length' | null
  /** beside the finish reason 'stop': the stop string that was found, or the request's stop token; null for the model's own end */
  stop_reason: string | number | null
}
