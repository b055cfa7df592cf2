// How a family of endpoints writes errors and events.

import type { ApiError } from '../errors.js'
import { toJson } from './json.js'

export interface Wire {
  /** the body of an answer that is an error */
  error(error: ApiError, requestId: string): object
  /** one server-sent event */
  event(value: object): string
  /** what follows the last event */
  end: string
  /** a second name of the header x-request-id */
  idHeader?: string
}

/** `data:` lines and [DONE]: completions and chats. */
export const openaiWire: Wire = {
  error: (error) => error.body(),
  event: (value) => `data: ${toJson(value)}\n\n`,
  end: 'data: [DONE]\n\n',
}

/** Events with names, and no word at the end: responses. */
export const typedWire: Wire = {
  error: (error) => error.body(),
  event: named,
  end: '',
}

const anthropicTypes: Record<number, string> = {
  401: 'authentication_error',
  403: 'permission_error',
  404: 'not_found_error',
  413: 'request_too_large',
  429: 'rate_limit_error',
  500: 'api_error',
  503: 'overloaded_error',
}

/** Anthropic's errors and events. */
export const anthropicWire: Wire = {
  error: ({ status, message }, request_id) => ({
    type: 'error',
    error: { type: anthropicTypes[status] ?? 'invalid_request_error', message },
    request_id,
  }),
  event: named,
  end: '',
  idHeader: 'request-id',
}

function named(value: object): string {
  return `event: ${(value as { type?: unknown }).type}\ndata: ${JSON.stringify(value)}\n\n`
}
