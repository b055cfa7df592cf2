// An endpoint: a body in, an answer or its parts out, whichever way the request came.

import type { RequestRecord, ServerState } from './context.js'

/** One request: over HTTP, or as a part of something larger such as a batch. */
export interface Call {
  readonly state: ServerState
  readonly record: RequestRecord
  /** aborted when nobody waits for the answer any more */
  readonly signal: AbortSignal
  /** no rate limit counts it: a line of a batch, which waits for all others anyway */
  readonly unlimited?: true
}

/** The whole answer, or the values of its stream. */
export type Reply = { json: object } | { events: AsyncGenerator<object> }

/** @throws ApiError for every request that cannot be answered */
export type Endpoint = (call: Call, body: unknown) => Promise<Reply>
