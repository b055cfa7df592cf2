// Web pages: which may ask from a browser, and the headers that tell the browser so (CORS).

import { isIP } from 'node:net'
import { ApiError } from '../errors.js'
import type { Ctx, ServerState } from './context.js'

const loopback = new Set(['localhost', '127.0.0.1', '[::1]'])

/** An IP address, as URLs write it. */
function isAddress(hostname: string): boolean {
  return isIP(hostname.replace(/^\[|\]$/g, '')) !== 0
}

/**
 * May a page of this origin ask? This server's own pages may. Where a name alone says that they are its own, they need its key: anybody can
 * let the name of his pages point here (DNS rebinding), but has neither a certificate nor an address for that.
 * @param origin the header, such as https://example.org
 * @param host the header of the same request
 */
export function originAllowed(
  { allowedOrigins, apiKey }: ServerState,
  origin: string,
  host: string | undefined,
): boolean {
  if (allowedOrigins.includes('*') || allowedOrigins.includes(origin)) return true
  if (!URL.canParse(origin)) return false // 'null': a file, or a page in a sandbox
  const url = new URL(origin)
  if (url.host === host && (apiKey !== null || url.protocol === 'https:' || isAddress(url.hostname))) return true
  return allowedOrigins.includes('localhost') && (loopback.has(url.hostname) || url.hostname.endsWith('.localhost'))
}

/**
 * Refuses pages that may not ask, tells the browser of those that may, and answers its question before the real request.
 * @returns the answer to a preflight, or null for every other request
 * @throws ApiError when a page of this origin may not ask
 */
export function checkOrigin(c: Ctx): Response | null {
  const origin = c.req.header('origin')
  if (origin === undefined) return null
  if (!originAllowed(c.get('state'), origin, c.req.header('host'))) {
    throw new ApiError(
      'origin_not_allowed',
      `Pages of ${origin.slice(0, 100)} may not use this server from a browser. The server's option --allowed-origins names those that may.`,
    )
  }
  c.header('access-control-allow-origin', origin)
  c.header('vary', 'origin')
  c.header(
    'access-control-expose-headers',
    'x-request-id, openai-processing-ms, retry-after, retry-after-ms, request-id, x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, x-ratelimit-reset-requests, x-ratelimit-reset-tokens',
  )
  if (c.req.method !== 'OPTIONS' || c.req.header('access-control-request-method') === undefined) return null
  c.header('access-control-allow-methods', 'GET, HEAD, POST, DELETE')
  // The clients send many headers of their own; none of them gives rights that the key does not.
  c.header('access-control-allow-headers', c.req.header('access-control-request-headers') ?? '*')
  c.header('access-control-max-age', '86400')
  return c.body(null, 204)
}
