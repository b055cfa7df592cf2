// The one loop over a choice's tokens: token events in, deltas out.

import { EngineFailure, type TokenEvent } from '../engine/engine.js'
import { ApiError } from '../errors.js'
import type { FinishedReason } from '../metrics.js'
import type { Tokenizer } from '../models/tokenizer.js'
import type { ChoiceTimes } from './choice_times.js'
import { countCodePoints, Detokenizer } from './detokenizer.js'
import { engineError } from './engine_error.js'
import { ShownTokens, showEvent } from './logprobs.js'
import { showPrompt } from './prompt_logprobs.js'
import type { Delta, EncodedPrompt, GenerationParams } from './request.js'
import { StopMatcher } from './stops.js'

export interface Choice {
  /** prompt * n + i */
  index: number
  prompt: EncodedPrompt
  /** an encoder read the prompt: the answer begins a text of its own instead of going on with the prompt's */
  encoded: boolean
  params: GenerationParams
  times: ChoiceTimes
}

/**
 * @param signal of the request; when it is aborted the choice ends without a word
 * @throws ApiError while iterating, when the engine fails
 */
export async function* choiceDeltas(
  events: AsyncIterable<TokenEvent> | Iterable<TokenEvent>,
  { index, prompt, encoded, params, times }: Choice,
  tokenizer: Tokenizer,
  signal: AbortSignal,
): AsyncGenerator<Delta> {
  const { include_stop_str_in_output = false, skip_special_tokens = true, min_tokens = 0 } = params
  const detokenizer = new Detokenizer(tokenizer, encoded ? [] : prompt.ids)
  const stops = new StopMatcher(params.stop, include_stop_str_in_output)
  const shown = new ShownTokens()
  let decoded = 0 // UTF-16 units of text made so far, given out or not
  let codePoints = 0 // the same in code points, an echoed prompt among them
  let given = 0 // UTF-16 units given out
  let numTokens = 0
  let begun = false
  let reason: FinishedReason = 'abort'
  try {
    for await (const event of events) {
      if (event.finish === 'cancelled') break
      if (event.finish === 'error') throw new EngineFailure('the engine ended the request with an error')
      const delta: Delta = {
        index,
        text: '',
        tokens: [],
        token_ids: [],
        logprob: 0,
        finish_reason: null,
        stop_reason: null,
      }
      if (!begun && (params.echo || event.prompt)) {
        delta.prompt = showPrompt(tokenizer, prompt.ids, prompt.text, event.prompt)
        if (params.echo) codePoints = countCodePoints(delta.prompt.text)
      }
      if (event.cached_tokens !== undefined) delta.cached_tokens = event.cached_tokens
      begun = true
      if (event.token < 0) {
        reason = 'length' // max_tokens is 0
        yield { ...delta, finish_reason: reason }
        return
      }
      times.token()
      numTokens++
      delta.token_ids.push(event.token)
      delta.logprob = event.logprob
      if (params.num_logprobs !== undefined) shown.add(decoded, showEvent(tokenizer, event, codePoints))
      const last = event.finish !== 'none'
      // The token that ended a completion says "end"; its text is none of the answer's.
      const silent =
        (event.finish === 'stop' && !include_stop_str_in_output) ||
        (skip_special_tokens && tokenizer.isSpecial(event.token))
      let piece = silent ? '' : detokenizer.push(event.token)
      if (last) piece += detokenizer.end()
      decoded += piece.length
      codePoints += countCodePoints(piece)
      // Before min_tokens no stop string counts.
      const { text, stopped } = numTokens < min_tokens ? { text: piece, stopped: null } : stops.push(piece)
      delta.text = text
      given += text.length
      if (stopped !== null) {
        reason = 'stop'
        yield { ...delta, tokens: shown.take(given), finish_reason: 'stop', stop_reason: stopped }
        return // leaving the loop cancels the request in the engine
      }
      if (last) {
        reason = event.finish === 'stop' ? 'stop' : 'length'
        const own = reason === 'stop' && params.stop_token_ids?.includes(event.token)
        delta.text += stops.end()
        delta.tokens = shown.take(Number.POSITIVE_INFINITY)
        yield { ...delta, finish_reason: reason, stop_reason: own ? event.token : null }
        return
      }
      delta.tokens = shown.take(given)
      yield delta
    }
    // Nobody but this request's signal and the end of the engine cancels a request.
    if (!signal.aborted) throw new ApiError('server_shutting_down', 'The server is shutting down.')
  } catch (error) {
    reason = 'error'
    throw engineError(error)
  } finally {
    times.finished(reason, prompt.ids.length)
  }
}
