// What the model thinks of texts, without a completion: embeddings, likelihoods, and which of a few tokens would come next.

import type { SamplingParams } from '../engine/contract.js'
import {
  type Engine,
  EngineFailure,
  type EngineRequest,
  type PromptLogprobs,
  type TokenEvent,
} from '../engine/engine.js'
import { ApiError } from '../errors.js'

/** See `queueing` in sampling.ts. */
type Queueing = Partial<Pick<SamplingParams, 'priority' | 'cache_salt'>>

/**
 * Hidden states of the prompts, [hidden_size] each: the mean over the tokens, or the last token's.
 * @throws EngineRefusal, EngineFailure; what the signal was aborted with
 */
export async function embed(
  engine: Engine,
  prompts: readonly Int32Array[],
  pooling: 'mean' | 'last',
  queueing: Queueing,
  signal: AbortSignal,
): Promise<Float32Array[]> {
  const events = await measure(engine, prompts, { ...queueing, max_tokens: 0, pooling }, signal)
  return events.map(({ pooled }) => pooled ?? missing())
}

/** Log-probabilities of the prompts' own tokens. @throws as embed */
export async function scorePrompts(
  engine: Engine,
  prompts: readonly Int32Array[],
  queueing: Queueing,
  signal: AbortSignal,
): Promise<PromptLogprobs[]> {
  const events = await measure(engine, prompts, { ...queueing, max_tokens: 0, num_prompt_logprobs: 0 }, signal)
  return events.map(({ prompt }) => prompt ?? missing())
}

/** Log-probabilities of `ids`, at most 32, as the token behind each prompt. @throws as embed */
export async function nextLogprobs(
  engine: Engine,
  prompts: readonly Int32Array[],
  ids: readonly number[],
  queueing: Queueing,
  signal: AbortSignal,
): Promise<Float32Array[]> {
  const sampling = { ...queueing, max_tokens: 1, temperature: 0, logprob_token_ids: Int32Array.from(ids) }
  const events = await measure(engine, prompts, sampling, signal)
  return events.map(({ top }) => Float32Array.from(top, ({ logprob }) => logprob))
}

/** Prompts of one request in the engine at a time: a long list must not fill the queue, nor keep all others waiting behind it. */
const maxInFlight = 64

/** The one event of each prompt. If one fails, none goes on. */
async function measure(
  engine: Engine,
  prompts: readonly Int32Array[],
  sampling: EngineRequest['sampling'],
  signal: AbortSignal,
): Promise<TokenEvent[]> {
  const controller = new AbortController()
  const all = AbortSignal.any([signal, controller.signal])
  const found: TokenEvent[] = []
  const waiting = prompts.entries()
  const work = async () => {
    for (const [i, prompt] of waiting) found[i] = await measureOne(engine, { prompt, sampling }, all, signal)
  }
  try {
    await Promise.all(Array.from({ length: Math.min(prompts.length, maxInFlight) }, work))
    return found
  } finally {
    controller.abort()
  }
}

async function measureOne(
  engine: Engine,
  request: EngineRequest,
  all: AbortSignal,
  signal: AbortSignal,
): Promise<TokenEvent> {
  for await (const event of engine.submit(request, all)) return event
  signal.throwIfAborted()
  // Nobody but the signal and the end of the engine cancels a request.
  throw new ApiError('server_shutting_down', 'The server is shutting down.')
}

function missing(): never {
  throw new EngineFailure('the engine did not report what it was asked for')
}
