// The only door to native code: tokens in, tokens out. Implemented by addon.ts (C++) and fake.ts (scripted).

import type { EngineInfo, EngineStats, FinishReason, SamplingParams } from './contract.js'

/** A token and the natural logarithm of its probability under the raw softmax. */
export interface TokenLogprob {
  token: number
  logprob: number
}

/** Log-probabilities of the tokens of a prompt, from the second on: entry i belongs to token i + 1. */
export interface PromptLogprobs {
  logprobs: Float32Array
  /** see TokenEvent.rank */
  ranks: Int32Array
  /** the most probable tokens at each place, best first, [tokens, num_prompt_logprobs] */
  top_tokens: Int32Array
  top_logprobs: Float32Array
}

/** One token of one request. */
export interface TokenEvent {
  /** -1: the request ends without a token, because max_tokens is 0 */
  token: number
  /** NaN when the request asked for no log-probabilities. */
  logprob: number
  /** How many tokens are at least as probable, itself among them; 0 when the request asked for no log-probabilities. */
  rank: number
  /** The most probable tokens, best first, as many as `num_logprobs` asked for; or those of `logprob_token_ids`, in their order. */
  top: TokenLogprob[]
  /** 'none' on every token but the last. The last token of 'stop' is the stop token itself. */
  finish: FinishReason
  /** on the first event, if the prefix cache spared some of the prompt: how many tokens */
  cached_tokens?: number
  /** on the first event of a request that asked for num_prompt_logprobs */
  prompt?: PromptLogprobs
  /** on the event of a request that asked for pooling: the hidden state, [hidden_size] */
  pooled?: Float32Array
}

/** What a request gives the engine. Fields of SamplingParams that are left out take the defaults of native/contract.def. */
export interface EngineRequest {
  prompt: Int32Array
  sampling: Partial<SamplingParams> & Pick<SamplingParams, 'max_tokens'>
  /**
   * About so much memory may the tokens take that wait for their reader, all choices together; 32 KiB where it is left out. Then the
   * request pauses, and goes on when they are read.
   */
  max_unread_bytes?: number
}

/** The engine refused the request (bad argument, too long for the model or the pages). Its message says what and why. */
export class EngineRefusal extends Error {}

/** The request waited longer for its turn than the engine allows, and was not begun. */
export class QueueTimeout extends Error {}

/** The request's own rules left no token that might come next. */
export class NoTokenLeft extends Error {}

/** The engine failed while the request ran; the request is lost, nothing of it was half-done. */
export class EngineFailure extends Error {}

export interface Engine {
  readonly info: EngineInfo
  /**
   * Queues a request and yields its tokens; the last event carries a finish reason other than 'none'. Nothing is awaited before the
   * request is queued. The reader's pace is the pace: a request whose tokens are not read pauses (max_unread_bytes), holds nobody up
   * meanwhile, and goes on as if nothing had been. Aborting the signal, or leaving the loop early, frees the request's pages within one step; an aborted
   * iteration just ends.
   * @throws EngineRefusal at once, QueueTimeout, NoTokenLeft and EngineFailure while iterating
   */
  submit(request: EngineRequest, signal?: AbortSignal): AsyncIterable<TokenEvent>
  /**
   * The same for several choices of one prompt, which is computed once. They differ in SamplingParams.choice, which counts up, and each
   * yields what it would alone.
   */
  submitChoices(request: EngineRequest, count: number, signal?: AbortSignal): AsyncIterable<TokenEvent>[]
  stats(): EngineStats
  /** Ends every running request with 'cancelled' and frees the engine. */
  close(): Promise<void>
}
