// The server's state at its start.

import type { ServerState } from './context.js'
import { ResponseStore } from './response_store.js'

type Given = Pick<ServerState, 'modelName' | 'apiKey' | 'allowedOrigins' | 'metrics' | 'log'>

/** A server that loads its model and has been asked nothing yet. */
export function newState(given: Given): ServerState {
  return {
    ...given,
    phase: { name: 'loading', progress: 0 },
    responses: new ResponseStore(),
    inFlight: 0,
    onIdle: null,
  }
}
