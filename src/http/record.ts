// One request's record: its id, its place in the count of those that run, its line in the log, the error that it was told.

import { randomUUID } from 'node:crypto'
import { ApiError, asApiError } from '../errors.js'
import type { RequestRecord, ServerState } from './context.js'

/** @param given the client's own id: kept if it is harmless in a log and a header */
export function requestId(given?: string): string {
  return given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : `req_${randomUUID().replaceAll('-', '')}`
}

/**
 * Counts a request in, and out again at its end.
 * @param method of HTTP; WS for a request over a WebSocket
 */
export function beginRequest(state: ServerState, id: string, method: string, path: string): RequestRecord {
  const started = performance.now()
  let ended = false
  state.inFlight++
  state.metrics.requestBegan()
  const record: RequestRecord = {
    id,
    started,
    streaming: false,
    end(status) {
      if (ended) return
      ended = true
      if (status === 499) state.metrics.clientGone()
      state.rateLimits?.settle(record, status)
      // Probes and scrapes come every few seconds; they are worth a line only when something is wrong.
      const level = method === 'GET' && status < 400 ? 'debug' : 'info'
      state.log(level, 'request', {
        request_id: id,
        method,
        path: path.slice(0, 200),
        status,
        error: record.error,
        prompt_tokens: record.prompt_tokens,
        completion_tokens: record.completion_tokens,
        finish_reason: record.finish_reason,
        duration_ms: Math.round((performance.now() - started) * 10) / 10,
      })
      state.metrics.requestEnded()
      if (--state.inFlight === 0) state.onIdle?.()
    },
  }
  return record
}

/** What a client is told of an error; the record, the metrics and, where something is the server's fault, the log are told too. */
export function tell(error: unknown, state: ServerState, record: RequestRecord): ApiError {
  const told = asApiError(error)
  record.error = told.kind
  state.metrics.rejected(told.kind)
  if (told.cause !== undefined) {
    const reason = error instanceof ApiError ? String(told.cause) : ((error as Error).stack ?? String(error))
    state.log('error', 'request_failed', { request_id: record.id, reason })
  }
  return told
}
