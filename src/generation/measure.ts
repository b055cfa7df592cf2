// What the model thinks of texts, without a completion: embeddings, likelihoods, and which of a few tokens would come next.

import {
  type Engine,
  EngineFailure,
  type EngineRequest,
  type PromptLogprobs,
  type TokenEvent,
} from '../engine/engine.js'

/**
 * Hidden states of the prompts, [hidden_size] each: the mean over the tokens, or the last token's.
 * @throws EngineRefusal, EngineFailure; AbortError when the signal is aborted
 */
export async function embed(
  engine: Engine,
  prompts: readonly Int32Array[],
  pooling: 'mean' | 'last',
  signal: AbortSignal,
): Promise<Float32Array[]> {
  const events = await measure(engine, prompts, { max_tokens: 0, pooling }, signal)
  return events.map(({ pooled }) => pooled ?? missing())
}

/** Log-probabilities of the prompts' own tokens. @throws as embed */
export async function scorePrompts(
  engine: Engine,
  prompts: readonly Int32Array[],
  signal: AbortSignal,
): Promise<PromptLogprobs[]> {
  const events = await measure(engine, prompts, { max_tokens: 0, num_prompt_logprobs: 0 }, signal)
  return events.map(({ prompt }) => prompt ?? missing())
}

/** Log-probabilities of `ids`, at most 32, as the token behind each prompt. @throws as embed */
export async function nextLogprobs(
  engine: Engine,
  prompts: readonly Int32Array[],
  ids: readonly number[],
  signal: AbortSignal,
): Promise<Float32Array[]> {
  const sampling = { max_tokens: 1, temperature: 0, logprob_token_ids: Int32Array.from(ids) }
  const events = await measure(engine, prompts, sampling, signal)
  return events.map(({ top }) => Float32Array.from(top, ({ logprob }) => logprob))
}

/** The one event of each prompt. If one fails, none goes on. */
async function measure(
  engine: Engine,
  prompts: readonly Int32Array[],
  sampling: EngineRequest['sampling'],
  signal: AbortSignal,
): Promise<TokenEvent[]> {
  const controller = new AbortController()
  const all = AbortSignal.any([signal, controller.signal])
  try {
    return await Promise.all(
      prompts.map(async (prompt) => {
        for await (const event of engine.submit({ prompt, sampling }, all)) return event
        signal.throwIfAborted()
        throw new EngineFailure('the engine ended the request without a result')
      }),
    )
  } finally {
    controller.abort()
  }
}

function missing(): never {
  throw new EngineFailure('the engine did not report what it was asked for')
}
