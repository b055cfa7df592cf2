// The server's state at its start.

import { Batches } from './batch_runner.js'
import { createChatCompletion } from './chat.js'
import { createCompletion } from './completions.js'
import type { ServerState } from './context.js'
import { createEmbedding } from './embeddings.js'
import { FileStore } from './file_store.js'
import { ResponseStore } from './response_store.js'
import { createResponse } from './responses.js'
import { Sockets } from './socket/sockets.js'

type Given = Pick<ServerState, 'modelName' | 'apiKey' | 'rateLimits' | 'allowedOrigins' | 'metrics' | 'log'>

/** What a line of a batch may ask. */
const batchEndpoints = {
  '/v1/chat/completions': createChatCompletion,
  '/v1/completions': createCompletion,
  '/v1/embeddings': createEmbedding,
  '/v1/responses': createResponse,
}

/**
 * A server that loads its model and has been asked nothing yet.
 * @param storage the folder for files and their bytes, at most; null: no files, no batches
 * @throws Error when the folder cannot be used
 */
export function newState(given: Given, storage: { folder: string; limit: number } | null): ServerState {
  const files = storage && new FileStore(storage.folder, storage.limit)
  const state: ServerState & { batches: Batches | null } = {
    ...given,
    phase: { name: 'loading', progress: 0 },
    responses: new ResponseStore(),
    sockets: new Sockets(given.metrics),
    files,
    batches: null,
    inFlight: 0,
    onIdle: null,
  }
  if (files) state.batches = new Batches(state, files, batchEndpoints)
  return state
}
