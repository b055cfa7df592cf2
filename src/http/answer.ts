// What completions and chats share: the first keys of their answers, and how a request asks to see them.

import { randomUUID } from 'node:crypto'
import type { ShownToken } from '../generation/logprobs.js'
import type { GenerationParams } from '../generation/request.js'
import type { Call } from './call.js'
import type { ChoosingFields, SamplingFields, ValidChat, ValidCompletion } from './schema.js'

/** A new id such as chatcmpl-0123456789abcdef0123456789abcdef. */
export function newId(prefix: string): string {
  return `${prefix}${randomUUID().replaceAll('-', '')}`
}

/** Seconds since 1970, now. */
export function now(): number {
  return Math.floor(Date.now() / 1000)
}

/** The keys that every object of one answer begins with. */
export interface AnswerHead<Kind extends string> {
  id: string
  object: Kind
  created: number
  model: string
  system_fingerprint: string
  service_tier?: 'default'
}

export function answerHead<const Kind extends string>(
  call: Call,
  id: string,
  object: Kind,
  fingerprint: string,
  body: ValidCompletion | ValidChat,
): AnswerHead<Kind> {
  return {
    id,
    object,
    created: now(),
    model: call.state.modelName,
    system_fingerprint: fingerprint,
    // All requests are served alike.
    ...(body.service_tier === undefined ? {} : { service_tier: 'default' }),
  }
}

/** What a request wants to see of its tokens. */
export interface Shown {
  logprobs: boolean
  /** token_ids beside the text */
  tokenIds: boolean
  /** tokens are called token_id:<id> instead of by their text */
  namesAreIds: boolean
  /** most probable tokens beside each of the prompt's, apart from an echo; undefined: the prompt's are not shown */
  promptLogprobs: number | undefined
  /** usage: in a last chunk of a stream, in every chunk of it, or in none */
  usage: 'none' | 'end' | 'always'
  /** chunks are filled up to one size; see obfuscation.ts */
  obfuscated: boolean
}

export function shownOf(body: ValidCompletion | ValidChat, logprobs: boolean): Shown {
  const { include_usage, continuous_usage_stats, include_obfuscation } = body.stream_options ?? {}
  return {
    logprobs,
    tokenIds: body.return_token_ids === true,
    namesAreIds: body.return_tokens_as_token_ids === true,
    promptLogprobs: body.prompt_logprobs,
    usage: include_usage !== true ? 'none' : continuous_usage_stats === true ? 'always' : 'end',
    obfuscated: include_obfuscation === true,
  }
}

/** A delta of text alone is told by a chunk of text alone. */
export function textOnly(shown: Shown): boolean {
  return !shown.logprobs && !shown.tokenIds && shown.usage !== 'always' && !shown.obfuscated
}

/** Bytes as text where they are no whole characters: \x and two digits for each. */
export function spelled({ bytes }: Pick<ShownToken, 'bytes'>): string {
  return Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')
}

/**
 * How the tokens are chosen, how many choices are made and which are given out, as generation reads it. One literal, for behind a first
 * spread each property is copied by itself, which took as long as all the rest of a request's validation.
 */
export function sampling(
  body: SamplingFields & ChoosingFields,
): Omit<GenerationParams, 'max_tokens' | 'max_tokens_param' | 'num_logprobs'> {
  return {
    temperature: body.temperature,
    top_p: body.top_p,
    top_k: body.top_k,
    min_p: body.min_p,
    presence_penalty: body.presence_penalty,
    frequency_penalty: body.frequency_penalty,
    repetition_penalty: body.repetition_penalty,
    seed: body.seed,
    ignore_eos: body.ignore_eos,
    logit_bias: body.logit_bias,
    min_tokens: body.min_tokens,
    stop_token_ids: body.stop_token_ids,
    allowed_token_ids: body.allowed_token_ids,
    bad_words: body.bad_words,
    logprob_token_ids: body.logprob_token_ids,
    stop: body.stop ?? [],
    n: body.n ?? 1,
    best_of: body.best_of,
    use_beam_search: body.use_beam_search,
    length_penalty: body.length_penalty,
    early_stopping: body.early_stopping,
    include_stop_str_in_output: body.include_stop_str_in_output,
    skip_special_tokens: body.skip_special_tokens,
    truncate_prompt_tokens: body.truncate_prompt_tokens,
    add_special_tokens: body.add_special_tokens,
    priority: body.priority,
    cache_salt: body.cache_salt,
  }
}
