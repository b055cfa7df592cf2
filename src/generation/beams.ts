// Beam search over the engine: every step asks for one more token of each running beam. The engine's prefix cache spares it the rest.

import {
  type Engine,
  EngineFailure,
  type EngineRequest,
  type PromptLogprobs,
  type TokenEvent,
} from '../engine/engine.js'
import { ApiError } from '../errors.js'
import { type BeamSearchOptions, beamSearch, beamTokens, type Hypothesis, numCandidates } from './beam_search.js'
import type { GenerationParams } from './request.js'

/** Most probable tokens that the engine reports (native/contract.def). */
const maxLogprobs = 32

/** What would change the probabilities or the end of a beam, with the value that does not. */
const unchanged = {
  stop: (value) => value.length === 0,
  presence_penalty: (value = 0) => value === 0,
  frequency_penalty: (value = 0) => value === 0,
  repetition_penalty: (value = 1) => value === 1,
  min_tokens: (value = 0) => value === 0,
  logit_bias: (value) => !value?.size,
  allowed_token_ids: (value) => !value?.length,
  bad_words: (value) => !value?.length,
  logprob_token_ids: (value) => !value?.length,
} satisfies { [Name in keyof GenerationParams]?: (value: GenerationParams[Name]) => boolean }

/**
 * How a request's beams are searched: as many as it wants choices, or best_of.
 * @param modelEnds ids that end the model's completions
 * @throws ApiError for what does not go together with beam search
 */
export function beamOptions(
  params: GenerationParams,
  max_tokens: number,
  modelEnds: readonly number[],
): BeamSearchOptions {
  const clash = Object.entries(unchanged).find(([name, test]) => !test(params[name as keyof GenerationParams] as never))
  if (clash) {
    const [name] = clash
    throw new ApiError('invalid_value', `'${name}' cannot be used together with 'use_beam_search'.`, name)
  }
  const options: BeamSearchOptions = {
    num_beams: Math.max(params.best_of ?? 1, params.n),
    max_tokens,
    length_penalty: params.length_penalty ?? 1,
    early_stopping: params.early_stopping ?? false,
    ends: new Set([...(params.ignore_eos ? [] : modelEnds), ...(params.stop_token_ids ?? [])]),
  }
  if (numCandidates(options) > maxLogprobs) {
    const most = Math.floor(maxLogprobs / (numCandidates(options) / options.num_beams))
    throw new ApiError(
      'invalid_value',
      `'use_beam_search' can follow at most ${most} beams here, but got ${options.num_beams}.`,
      params.best_of === undefined ? 'n' : 'best_of',
    )
  }
  return options
}

/**
 * The hypotheses, best first, each as the events that an ordinary request would have had. Aborting the signal ends the search; then
 * there are none.
 * @param request its sampling may ask for log-probabilities of the prompt
 * @param numSampledIds ids from here on are never chosen
 */
export async function searchBeams(
  engine: Engine,
  request: EngineRequest,
  options: BeamSearchOptions,
  numSampledIds: number,
  signal: AbortSignal,
): Promise<TokenEvent[][]> {
  const num_logprobs = numCandidates(options)
  let prompt: PromptLogprobs | undefined
  let cached_tokens: number | undefined
  const step = async (tokens: readonly number[]) => {
    const { priority, cache_salt } = request.sampling
    const sampling = {
      ...(priority !== undefined && { priority }),
      ...(cache_salt !== undefined && { cache_salt }),
      max_tokens: 1,
      temperature: 0,
      num_logprobs,
      num_prompt_logprobs: tokens.length === 0 ? (request.sampling.num_prompt_logprobs ?? -1) : -1,
    }
    const sequence = Int32Array.from([...request.prompt, ...tokens])
    for await (const event of engine.submit({ ...request, prompt: sequence, sampling }, signal)) {
      if (tokens.length === 0) ({ prompt, cached_tokens } = event)
      return event.top.filter(({ token }) => token >= 0 && token < numSampledIds)
    }
    if (!signal.aborted) throw new EngineFailure('the engine ended a beam without a token')
    return [] // no continuation: the search ends
  }
  const hypotheses = await beamSearch((beams) => Promise.all(beams.map(step)), options)
  if (signal.aborted) return []
  const ofPrompt = { ...(prompt && { prompt }), ...(cached_tokens && { cached_tokens }) }
  return hypotheses.map((hypothesis) => eventsOf(hypothesis, ofPrompt))
}

/** @param ofPrompt what the first event tells of the prompt */
function eventsOf(hypothesis: Hypothesis, ofPrompt: Pick<TokenEvent, 'prompt' | 'cached_tokens'>): TokenEvent[] {
  return beamTokens(hypothesis.last).map(({ token, logprob, top }, i) => ({
    token,
    logprob,
    rank: top.filter((other) => other.logprob >= logprob).length,
    top: [...top],
    finish: i === hypothesis.length - 1 ? hypothesis.finish : 'none',
    ...(i === 0 ? ofPrompt : {}),
  }))
}
