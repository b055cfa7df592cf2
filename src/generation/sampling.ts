// What a request says of how its tokens are chosen → the engine's SamplingParams. Defaults, ids and words are settled here.

import { createHash } from 'node:crypto'
import type { SamplingParams } from '../engine/contract.js'
import { ApiError } from '../errors.js'
import type { Model } from '../models/model.js'
import type { GenerationParams } from './request.js'

/** All that does not depend on the prompt or the choice. @param badWords ids of the words that may not come. @throws ApiError for ids that the model does not have */
export function samplingParams(
  params: GenerationParams,
  badWords: readonly Int32Array[],
  model: Model,
): Partial<SamplingParams> {
  const defaults = model.generationDefaults
  // To choose the best of several completions, their log-probabilities are needed whether they are shown or not.
  const num_logprobs = params.num_logprobs ?? ((params.best_of ?? params.n) > params.n ? 0 : -1)
  return {
    ...queueing(params),
    temperature: params.temperature ?? defaults.temperature ?? 1,
    top_p: params.top_p ?? defaults.top_p ?? 1,
    top_k: Math.max(0, params.top_k ?? defaults.top_k ?? 0),
    min_p: params.min_p ?? defaults.min_p ?? 0,
    presence_penalty: params.presence_penalty ?? 0,
    frequency_penalty: params.frequency_penalty ?? 0,
    repetition_penalty: params.repetition_penalty ?? defaults.repetition_penalty ?? 1,
    num_logprobs,
    num_prompt_logprobs: params.num_prompt_logprobs ?? (params.echo ? params.num_logprobs : undefined) ?? -1,
    min_tokens: params.min_tokens ?? 0,
    ignore_eos: params.ignore_eos ?? false,
    eos_token_ids: Int32Array.from(model.stopTokenIds),
    stop_token_ids: knownIds(params.stop_token_ids, 'stop_token_ids', model),
    allowed_token_ids: knownIds(params.allowed_token_ids, 'allowed_token_ids', model),
    logprob_token_ids: knownIds(params.logprob_token_ids, 'logprob_token_ids', model),
    bad_word_ids: Int32Array.from(badWords.flatMap((ids) => [...ids])),
    bad_word_sizes: Int32Array.from(badWords, (ids) => ids.length),
    bias_ids: knownIds(params.logit_bias?.keys(), 'logit_bias', model),
    bias_values: Float32Array.from(params.logit_bias?.values() ?? []),
  }
}

/** The engine knows a salt by 53 bits of its hash. */
function saltNumber(salt: string | undefined): number {
  if (salt === undefined) return 0
  return Number(createHash('sha256').update(salt).digest().readBigUInt64BE() >> 11n)
}

/** When a request gets its turn, and with whom it shares cached pages. */
export function queueing({
  priority = 0,
  cache_salt,
}: Pick<GenerationParams, 'priority' | 'cache_salt'>): Pick<SamplingParams, 'priority' | 'cache_salt'> {
  return { priority, cache_salt: saltNumber(cache_salt) }
}

/** Shared, for most requests have none of most lists. */
const noIds = new Int32Array()

/** Ids that may be sampled. */
function knownIds(ids: Iterable<number> | undefined, param: string, { spec }: Model): Int32Array {
  if (ids === undefined) return noIds
  const known = [...ids]
  const wrong = known.find((id) => id >= spec.num_sampled_ids)
  if (wrong !== undefined) {
    throw new ApiError(
      'invalid_value',
      `'${param}' names the token id ${wrong}; this model's ids end at ${spec.num_sampled_ids - 1}.`,
      param,
    )
  }
  return Int32Array.from(known)
}
