// How a family of endpoints writes errors and events.

import type { ApiError } from '../errors.js'

export interface Wire {
  /** the body of an answer that is an error */
  error(error: ApiError, requestId: string): object
  /** one server-sent event */
  event(value: object): string
  /** what follows the last event */
  end: string
}

/** `data:` lines and [DONE]: completions and chats. */
export const openaiWire: Wire = {
  error: (error) => error.body(),
  event: (value) => `data: ${JSON.stringify(value)}\n\n`,
  end: 'data: [DONE]\n\n',
}
