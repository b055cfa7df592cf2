// Log-probabilities of a prompt that is one token longer than the context. Its last token is predicted by the one before and predicts
// nothing, so it needs no place.

import {
  type Engine,
  EngineFailure,
  type EngineRequest,
  type PromptLogprobs,
  type TokenEvent,
} from '../engine/engine.js'

/** The one event of a request with max_tokens 0. @param request asks for log-probabilities of the prompt */
export async function* scoreWithLastToken(
  engine: Engine,
  { prompt, sampling }: EngineRequest,
  signal: AbortSignal,
): AsyncGenerator<TokenEvent> {
  const { num_prompt_logprobs = 0, priority = 0, cache_salt = 0 } = sampling
  const events = engine.submit(
    {
      prompt: prompt.subarray(0, -1),
      sampling: {
        max_tokens: 1,
        priority,
        cache_salt,
        num_prompt_logprobs,
        num_logprobs: num_prompt_logprobs,
        allowed_token_ids: prompt.slice(-1), // what may be chosen changes nothing of the log-probabilities
      },
    },
    signal,
  )
  for await (const event of events) {
    if (event.prompt === undefined) throw new EngineFailure('the engine did not report what it was asked for')
    yield { ...event, token: -1, finish: 'length', prompt: append(event.prompt, event) }
  }
}

function append(prompt: PromptLogprobs, { logprob, rank, top }: TokenEvent): PromptLogprobs {
  return {
    logprobs: appendTo(Float32Array, prompt.logprobs, [logprob]),
    ranks: appendTo(Int32Array, prompt.ranks, [rank]),
    top_tokens: appendTo(
      Int32Array,
      prompt.top_tokens,
      top.map(({ token }) => token),
    ),
    top_logprobs: appendTo(
      Float32Array,
      prompt.top_logprobs,
      top.map((other) => other.logprob),
    ),
  }
}

function appendTo<T extends Float32Array | Int32Array>(Type: new (length: number) => T, list: T, more: number[]): T {
  const all = new Type(list.length + more.length)
  all.set(list)
  all.set(more, list.length)
  return all
}
