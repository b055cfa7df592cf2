// Token ids of prompts and what is asked of them → a request that is ready for the engine, or an error that says what does not fit.

import { ApiError } from '../errors.js'
import type { Model } from '../models/model.js'
import { beamOptions } from './beams.js'
import type { EncodedPrompt, GenerationParams, PreparedRequest } from './request.js'
import { samplingParams } from './sampling.js'

/**
 * @param badWords ids of the words that may not come
 * @param limit the longest request in tokens
 * @param defaultTokens completion tokens if the request does not say; null: the rest of the context
 * @param param the request's field that holds the prompts, for messages
 * @throws ApiError
 */
export function prepare(
  model: Model,
  limit: number,
  encoded: readonly EncodedPrompt[],
  badWords: readonly Int32Array[],
  params: GenerationParams,
  defaultTokens: number | null,
  param: string,
  arrived: number,
): PreparedRequest {
  if (model.spec.num_encoder_layers > 0) refuseForEncoder(params)
  const kept = encoded.map((prompt) => truncated(prompt, params, limit))
  const prompts = kept.map(({ ids }) => ids)
  const max_tokens = prompts.map((prompt) => {
    const room = limit - prompt.length
    if (room < 1 && isScored(prompt, params, limit, model)) return room === 0 ? (params.max_tokens ?? 0) : 0
    if (room < 0 || (room < 1 && params.max_tokens !== 0)) {
      throw new ApiError(
        'context_length_exceeded',
        `This model's maximum context length is ${limit} tokens. There are ${prompt.length} tokens in your ${param}, which leaves no room for a completion. Please shorten the ${param}.`,
        param,
      )
    }
    if (params.max_tokens === undefined) return Math.min(defaultTokens ?? room, room)
    if (params.max_tokens > room && params.clamp_max_tokens) return room
    if (params.max_tokens > room) {
      throw new ApiError(
        'context_length_exceeded',
        `This model's maximum context length is ${limit} tokens. You asked for ${prompt.length + params.max_tokens} tokens: ${prompt.length} in the ${param} and ${params.max_tokens} in the completion (${params.max_tokens_param}). Please ask for less.`,
        param,
      )
    }
    return params.max_tokens
  })
  if (params.use_beam_search) for (const tokens of max_tokens) beamOptions(params, tokens, model.stopTokenIds)
  return {
    prompts,
    texts: kept.map(({ text }) => text),
    num_prompt_tokens: prompts.reduce((sum, prompt) => sum + prompt.length, 0),
    params,
    max_tokens,
    sampling: samplingParams(params, badWords, model),
    arrived,
  }
}

/**
 * A prompt that is only scored may fill the context, and be one token longer: its last token predicts nothing, so it needs no place.
 * The one token that clients ask for with it is chosen where the prompt's last token has a place (see last_token.ts).
 */
function isScored(prompt: Int32Array, params: GenerationParams, limit: number, model: Model): boolean {
  const { echo, num_logprobs, num_prompt_logprobs = echo ? num_logprobs : undefined, max_tokens = 2 } = params
  const last = prompt[limit] ?? 0
  return (
    num_prompt_logprobs !== undefined &&
    max_tokens <= 1 &&
    !params.use_beam_search &&
    prompt.length <= limit + 1 &&
    last < model.spec.num_sampled_ids
  )
}

/**
 * What asks for the prompt as the beginning of the answer. An encoder-decoder's prompt is none: the decoder gives it no
 * log-probabilities, and a beam's tokens cannot be appended to it.
 * @throws ApiError
 */
function refuseForEncoder({ echo, num_prompt_logprobs, use_beam_search }: GenerationParams): void {
  const asked = Object.entries({ echo, prompt_logprobs: num_prompt_logprobs !== undefined, use_beam_search })
  const name = asked.find(([, wanted]) => wanted)?.[0]
  if (name === undefined) return
  throw new ApiError('unsupported_parameter', `'${name}' is not supported for encoder-decoder models yet.`, name)
}

/** The end of a prompt, as long as truncate_prompt_tokens allows. */
function truncated(prompt: EncodedPrompt, params: GenerationParams, limit: number): EncodedPrompt {
  const { truncate_prompt_tokens, max_tokens } = params
  if (truncate_prompt_tokens === undefined) return prompt
  const kept = truncate_prompt_tokens === -1 ? Math.max(1, limit - (max_tokens ?? 1)) : truncate_prompt_tokens
  const { ids } = prompt
  return ids.length > kept ? { ids: ids.subarray(ids.length - kept), text: null } : prompt
}
