// ONE table of all that a client can be told. Nothing else in the server makes up a status, a type or a code.

const invalid = 'invalid_request_error'

interface Row {
  /** of HTTP */
  status: number
  type: string
  code: string | null
  /** seconds after which trying again makes sense */
  retry_after?: number
}

const rows = {
  // what the request says
  invalid_json: { status: 400, type: invalid, code: 'invalid_json' },
  unsupported_media_type: { status: 415, type: invalid, code: 'unsupported_media_type' },
  request_too_large: { status: 413, type: invalid, code: 'request_too_large' },
  bad_http: { status: 400, type: invalid, code: 'bad_http' },
  request_timeout: { status: 408, type: invalid, code: 'request_timeout' },
  headers_too_large: { status: 431, type: invalid, code: 'headers_too_large' },
  missing_required_parameter: { status: 400, type: invalid, code: 'missing_required_parameter' },
  unsupported_parameter: { status: 400, type: invalid, code: 'unsupported_parameter' },
  unsupported_value: { status: 400, type: invalid, code: 'unsupported_value' },
  invalid_type: { status: 400, type: invalid, code: 'invalid_type' },
  invalid_value: { status: 400, type: invalid, code: 'invalid_value' },
  integer_below_min_value: { status: 400, type: invalid, code: 'integer_below_min_value' },
  integer_above_max_value: { status: 400, type: invalid, code: 'integer_above_max_value' },
  decimal_below_min_value: { status: 400, type: invalid, code: 'decimal_below_min_value' },
  decimal_above_max_value: { status: 400, type: invalid, code: 'decimal_above_max_value' },
  empty_array: { status: 400, type: invalid, code: 'empty_array' },
  array_above_max_length: { status: 400, type: invalid, code: 'array_above_max_length' },
  empty_string: { status: 400, type: invalid, code: 'empty_string' },
  string_above_max_length: { status: 400, type: invalid, code: 'string_above_max_length' },
  context_length_exceeded: { status: 400, type: invalid, code: 'context_length_exceeded' },
  chat_template_missing: { status: 400, type: invalid, code: 'chat_template_missing' },
  chat_template_failed: { status: 400, type: invalid, code: 'chat_template_failed' },
  tokenizer_failed: { status: 400, type: invalid, code: 'tokenizer_failed' },
  request_refused: { status: 400, type: invalid, code: 'request_refused' },
  // who asks, and for what
  missing_api_key: { status: 401, type: invalid, code: null },
  invalid_api_key: { status: 401, type: invalid, code: 'invalid_api_key' },
  origin_not_allowed: { status: 403, type: invalid, code: 'origin_not_allowed' },
  model_not_found: { status: 404, type: invalid, code: 'model_not_found' },
  response_not_found: { status: 404, type: invalid, code: 'response_not_found' },
  file_not_found: { status: 404, type: invalid, code: 'file_not_found' },
  batch_not_found: { status: 404, type: invalid, code: 'batch_not_found' },
  files_disabled: { status: 404, type: invalid, code: 'files_disabled' },
  files_full: { status: 413, type: invalid, code: 'files_full' },
  file_in_use: { status: 400, type: invalid, code: 'file_in_use' },
  unknown_url: { status: 404, type: invalid, code: 'unknown_url' },
  method_not_allowed: { status: 405, type: invalid, code: 'method_not_allowed' },
  item_not_found: { status: 404, type: invalid, code: 'item_not_found' },
  conversation_already_has_active_response: {
    status: 400,
    type: invalid,
    code: 'conversation_already_has_active_response',
  },
  response_cancel_not_active: { status: 400, type: invalid, code: 'response_cancel_not_active' },
  upgrade_required: { status: 426, type: invalid, code: 'upgrade_required' },
  // what the server cannot do now
  socket_busy: { status: 429, type: 'rate_limit_error', code: 'rate_limit_exceeded', retry_after: 1 },
  too_many_sockets: { status: 503, type: 'server_error', code: 'too_many_sockets', retry_after: 5 },
  model_loading: { status: 503, type: 'server_error', code: 'model_loading', retry_after: 1 },
  server_shutting_down: { status: 503, type: 'server_error', code: 'server_shutting_down', retry_after: 5 },
  // OpenAI's types of these two are the names of the limits.
  rate_limit_requests: { status: 429, type: 'requests', code: 'rate_limit_exceeded' },
  rate_limit_tokens: { status: 429, type: 'tokens', code: 'rate_limit_exceeded' },
  queue_full: { status: 429, type: 'rate_limit_error', code: 'queue_full', retry_after: 1 },
  queue_timeout: { status: 503, type: 'server_error', code: 'queue_timeout', retry_after: 5 },
  engine_stalled: { status: 503, type: 'server_error', code: 'engine_stalled', retry_after: 5 },
  engine_failure: { status: 500, type: 'server_error', code: 'engine_failure' },
  internal_error: { status: 500, type: 'server_error', code: 'internal_error' },
} satisfies Record<string, Row>

/** A row of the table. */
export type ErrorKind = keyof typeof rows

const table: Record<ErrorKind, Row> = rows

/** What an OpenAI client reads: all four keys, always; `code` is a string or null. */
export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string | null }
}

/** An error that a client is told. Its message goes out as it is, so it holds nothing of the server's inside. */
export class ApiError extends Error {
  /** HTTP status */
  readonly status: number
  /** seconds after which trying again makes sense, or null */
  readonly retryAfter: number | null
  readonly kind: ErrorKind
  readonly param: string | null

  /**
   * @param cause what the log is told and the client is not
   * @param retryAfter the seconds, where they are not always those of the table
   */
  constructor(
    kind: ErrorKind,
    message: string,
    param: string | null = null,
    cause?: unknown,
    retryAfter = table[kind].retry_after ?? null,
  ) {
    super(message, { cause })
    this.kind = kind
    this.param = param
    this.status = table[kind].status
    this.retryAfter = retryAfter
  }

  body(): ErrorBody {
    const { type, code } = table[this.kind]
    return { error: { message: this.message, type, param: this.param, code } }
  }
}

/** An error as a client is told of it: what is no ApiError is the server's own fault, and stays its secret. */
export function asApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error
  return new ApiError('internal_error', 'Something went wrong in the server.', null, error)
}

/** All kinds, for tests that hold the table to its rules. */
export const errorKinds = Object.keys(table) as ErrorKind[]
