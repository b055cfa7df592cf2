// The Hono app and the HTTP server around it: request ids, errors, the log's line per request, limits.

import { randomUUID } from 'node:crypto'
import { createServer, type Server, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { ApiError } from '../errors.js'
import { checkKey } from './auth.js'
import type { Ctx, Env, RequestRecord, ServerState } from './context.js'
import { checkOrigin } from './origin.js'
import { routes } from './routes.js'
import { timed } from './timing.js'
import { openaiWire } from './wire.js'

/** The HTTP server, not listening yet. */
export function createHttpServer(state: ServerState): Server {
  const app = createApp(state)
  const listener = getRequestListener(app.fetch as Parameters<typeof getRequestListener>[0], {
    // A request that cannot even become a Request: a bad Host header or target.
    errorHandler: () =>
      respond(new ApiError('bad_http', 'The request line or the Host header is not valid.'), newRequestId()),
  })
  const server = createServer(
    {
      // A client that sends its request byte by byte holds a socket no longer than this.
      headersTimeout: 10_000,
      requestTimeout: 60_000,
      connectionsCheckingInterval: 2_000,
      // Longer than the usual 60 s of proxies and clients, so that they close first and no request falls into the gap.
      keepAliveTimeout: 75_000,
    },
    listener,
  )
  server.on('clientError', answerClientError)
  return server
}

function createApp(state: ServerState): Hono<Env> {
  const app = new Hono<Env>()

  app.use(async (c, next) => {
    const record = begin(c as Ctx, state)
    c.set('state', state)
    c.set('record', record)
    c.set('wire', openaiWire)
    c.header('x-request-id', record.id)
    const preflight = checkOrigin(c as Ctx)
    if (preflight) c.res = preflight
    else await next()
    if (!record.streaming) record.end(c.req.raw.signal.aborted ? 499 : c.res.status)
  })

  for (const { method, path, open, wire, handle } of routes) {
    app.on(method, path, (c) => {
      if (wire) c.set('wire', wire)
      if (wire?.idHeader) c.header(wire.idHeader, c.get('record').id)
      if (!open) checkKey(c)
      return handle(c)
    })
  }
  for (const path of new Set(routes.map((route) => route.path))) {
    app.all(path, (c) => {
      checkKey(c)
      const allowed: string[] = routes.filter((route) => route.path === path).map((route) => route.method)
      if (allowed.includes('GET')) allowed.push('HEAD')
      c.header('allow', allowed.join(', '))
      if (c.req.method === 'OPTIONS') return c.body(null, 204)
      throw new ApiError(
        'method_not_allowed',
        `${c.req.method} is not allowed here; use ${allowed.filter((method) => method !== 'HEAD').join(' or ')}.`,
      )
    })
  }

  app.notFound((c) => {
    try {
      checkKey(c)
      throw new ApiError('unknown_url', `There is nothing at ${c.req.method} ${c.req.path.slice(0, 100)}.`)
    } catch (error) {
      return answerError(error, c)
    }
  })
  app.onError((error, c) => answerError(error, c))
  return app
}

function newRequestId(): string {
  return `req_${randomUUID().replaceAll('-', '')}`
}

/** Counts the request in, and out again at its end. */
function begin(c: Ctx, state: ServerState): RequestRecord {
  const given = c.req.header('x-request-id')
  const started = performance.now()
  let ended = false
  state.inFlight++
  const record: RequestRecord = {
    // Only what is harmless in a log and a header is echoed.
    id: given !== undefined && /^[\w.:-]{1,128}$/.test(given) ? given : newRequestId(),
    started,
    streaming: false,
    end(status) {
      if (ended) return
      ended = true
      if (status === 499) state.metrics.clientGone()
      // Probes and scrapes come every few seconds; they are worth a line only when something is wrong.
      const level = c.req.method === 'GET' && status < 400 ? 'debug' : 'info'
      state.log(level, 'request', {
        request_id: record.id,
        method: c.req.method,
        path: c.req.path.slice(0, 200),
        status,
        error: record.error,
        prompt_tokens: record.prompt_tokens,
        completion_tokens: record.completion_tokens,
        finish_reason: record.finish_reason,
        duration_ms: Math.round((performance.now() - started) * 10) / 10,
      })
      if (--state.inFlight === 0) state.onIdle?.()
    },
  }
  return record
}

function answerError(error: unknown, c: Ctx): Response {
  const state = c.get('state')
  const record = c.get('record')
  let told: ApiError
  if (error instanceof ApiError) {
    told = error
    if (error.cause !== undefined)
      state.log('error', 'request_failed', { request_id: record.id, reason: String(error.cause) })
  } else {
    told = new ApiError('internal_error', 'Something went wrong in the server.')
    state.log('error', 'internal_error', {
      request_id: record.id,
      reason: error instanceof Error ? (error.stack ?? error.message) : String(error),
    })
  }
  record.error = told.kind
  state.metrics.rejected(told.kind)
  if (told.retryAfter !== null) {
    c.header('retry-after', String(Math.ceil(told.retryAfter)))
    c.header('retry-after-ms', String(Math.round(told.retryAfter * 1000)))
  }
  if (told.status === 401) c.header('www-authenticate', 'Bearer')
  // A socket that stays open would carry the next request into a server that is going.
  if (told.kind === 'server_shutting_down') c.header('connection', 'close')
  timed(c)
  return c.json(c.get('wire').error(told, record.id), told.status as 400)
}

function respond(error: ApiError, requestId: string): Response {
  return Response.json(error.body(), { status: error.status, headers: { 'x-request-id': requestId } })
}

/** What node's parser refuses never reaches the app, and gets the same kind of answer. */
function answerClientError(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const told =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? new ApiError('headers_too_large', 'The headers must be at most 16 KiB together.')
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? new ApiError('request_timeout', 'The request was not complete in time.')
        : new ApiError('bad_http', 'This is not a valid HTTP request.')
  const body = JSON.stringify(told.body())
  socket.end(
    [
      `HTTP/1.1 ${told.status} ${STATUS_CODES[told.status]}`,
      'content-type: application/json',
      `content-length: ${Buffer.byteLength(body)}`,
      `x-request-id: ${newRequestId()}`,
      'connection: close',
      '',
      body,
    ].join('\r\n'),
  )
}
