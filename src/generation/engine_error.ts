// Errors of the engine → errors that a client is told.

import { EngineFailure, EngineRefusal, NoTokenLeft, QueueTimeout } from '../engine/engine.js'
import { ApiError } from '../errors.js'

/** An ApiError in place of an engine's error; everything else is as it was. */
export function engineError(error: unknown): unknown {
  if (error instanceof EngineRefusal)
    return new ApiError('request_refused', `The engine refused this request: ${error.message}`)
  if (error instanceof NoTokenLeft) {
    return new ApiError(
      'invalid_value',
      "No token is left to choose: 'bad_words' or 'min_tokens' forbid all that the vocabulary has or 'allowed_token_ids' allows.",
    )
  }
  if (error instanceof QueueTimeout) {
    return new ApiError(
      'queue_timeout',
      'The server is busy: this request did not get its turn in time. Please try again later.',
    )
  }
  if (error instanceof EngineFailure) {
    return new ApiError('engine_failure', 'The engine failed while it worked on this request.', null, error)
  }
  return error
}
