// The Hono app and the HTTP server around it: request ids, errors, the log's line per request, limits.

import { createServer, type Server, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { Hono } from 'hono'
import { ApiError } from '../errors.js'
import { setAnswerHeaders } from './answer_headers.js'
import { checkKey } from './auth.js'
import type { Ctx, Env, ServerState } from './context.js'
import { checkOrigin } from './origin.js'
import { beginRequest, requestId, tell } from './record.js'
import { routes } from './routes.js'
import { acceptUpgrades } from './socket/upgrade.js'

import { openaiWire } from './wire.js'

/** The HTTP server, not listening yet. */
export function createHttpServer(state: ServerState): Server {
  const app = createApp(state)
  const listener = getRequestListener(app.fetch as Parameters<typeof getRequestListener>[0], {
    // Of requests without a Host header, which HTTP/1.0 allows: load balancers' probes.
    hostname: 'localhost',
    // A request that cannot even become a Request: a bad Host header or target.
    errorHandler: () =>
      respond(new ApiError('bad_http', 'The request line or the Host header is not valid.'), requestId()),
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
  acceptUpgrades(server, app, state)
  return server
}

function createApp(state: ServerState): Hono<Env> {
  const app = new Hono<Env>()

  app.use(async (c, next) => {
    const record = beginRequest(state, requestId(c.req.header('x-request-id')), c.req.method, c.req.path)
    c.set('state', state)
    c.set('record', record)
    c.set('wire', openaiWire)
    c.header('x-request-id', record.id)
    const preflight = checkOrigin(c as Ctx)
    if (preflight) c.res = preflight
    else {
      try {
        await next()
      } catch (thrown) {
        c.res = answerError(thrown, c as Ctx) // no Error, so Hono hands it on: the reason of an aborted signal may be a text
      }
    }
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
      throw unknownUrl(c.req.method, c.req.path)
    } catch (error) {
      return answerError(error, c)
    }
  })
  app.onError(answerError)
  return app
}

/** A base URL without /v1, with it twice, or with a slash at its end is the usual mistake, and told so. */
function unknownUrl(method: string, path: string): ApiError {
  const end = path
    .replace(/\/{2,}/g, '/')
    .replace(/^(?:\/v1(?=\/))+/, '')
    .replace(/\/$/, '')
  const meant = [`/v1${end}`, end].find((other) => routes.some((route) => route.path === other))
  const hint = meant === undefined ? '; /docs shows what there is.' : `. Did you mean ${meant}?`
  return new ApiError('unknown_url', `There is nothing at ${method} ${path.slice(0, 100)}${hint}`)
}

function answerError(error: unknown, c: Ctx): Response {
  if (error === c.req.raw.signal.reason) return new Response(null, { status: 499 }) // who is gone is told nothing
  const record = c.get('record')
  const told = tell(error, c.get('state'), record)
  if (told.retryAfter !== null) {
    c.header('retry-after', String(Math.ceil(told.retryAfter)))
    c.header('retry-after-ms', String(Math.round(told.retryAfter * 1000)))
  }
  if (told.status === 401) c.header('www-authenticate', 'Bearer')
  // A socket that stays open would carry the next request into a server that is going.
  if (told.kind === 'server_shutting_down') c.header('connection', 'close')
  setAnswerHeaders(c)
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
      `x-request-id: ${requestId()}`,
      'connection: close',
      '',
      body,
    ].join('\r\n'),
  )
}
