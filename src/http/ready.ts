// Requests that need the model: only once it is loaded, and not while the server shuts down.

import { ApiError } from '../errors.js'
import type { Phase, ServerState } from './context.js'

/** @throws ApiError with what the client should wait for */
export function needModel({ phase }: ServerState): Extract<Phase, { name: 'ready' }> {
  if (phase.name === 'ready') return phase
  throw notReady(phase)
}

/** Why the server cannot answer now. */
export function notReady(phase: Exclude<Phase, { name: 'ready' }>): ApiError {
  return phase.name === 'loading'
    ? new ApiError(
        'model_loading',
        `The model is ${phase.downloading ? 'downloading' : 'loading'} (${Math.floor(phase.progress * 100)}%).`,
      )
    : new ApiError('server_shutting_down', 'The server is shutting down.')
}

/** @throws ApiError unless the request names the served model or none */
export function checkModel({ modelName }: ServerState, model: string | undefined): void {
  if (model === undefined || model === modelName) return
  const shown = model.length > 100 ? `${model.slice(0, 100)}…` : model
  throw new ApiError('model_not_found', `The model '${shown}' does not exist. This server has '${modelName}'.`, 'model')
}
