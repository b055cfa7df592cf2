// Who may ask. The check belongs to the matched route, never to a path, so no spelling of a URL goes around it.

import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'

const secret = randomBytes(32)

/** Equal lengths for timingSafeEqual, and nothing to learn from how long it takes. */
function digest(text: string): Buffer {
  return createHmac('sha256', secret).update(text).digest()
}

/** @throws ApiError unless the server has no key or the request brings it */
export function checkKey(c: Ctx): void {
  const { apiKey } = c.get('state')
  if (apiKey === null) return
  const header = c.req.header('authorization')
  const plain = c.req.header('x-api-key') ?? protocolKey(c) // Anthropic's clients; browsers' WebSockets
  if (!header && !plain) {
    throw new ApiError(
      'missing_api_key',
      'This server needs an API key. Send it in the header `Authorization: Bearer <key>`.',
    )
  }
  const given = header ? /^bearer +(.+)$/i.exec(header)?.[1] : plain
  if (given === undefined) throw new ApiError('invalid_api_key', 'The header `Authorization` must be `Bearer <key>`.')
  if (!timingSafeEqual(digest(given), digest(apiKey))) throw new ApiError('invalid_api_key', 'The API key is wrong.')
}

const keyProtocol = 'openai-insecure-api-key.'

/** The key as OpenAI's browser client sends it with a WebSocket, for which browsers allow no header: as a subprotocol. */
function protocolKey(c: Ctx): string | undefined {
  const protocols = c.req.header('sec-websocket-protocol')?.split(',') ?? []
  return protocols
    .map((name) => name.trim())
    .find((name) => name.startsWith(keyProtocol))
    ?.slice(keyProtocol.length)
}

/** The subprotocol that a WebSocket gets of those that its client offers: the first that is no key. */
export function chooseProtocol(offered: ReadonlySet<string>): string | false {
  return [...offered].find((name) => !name.startsWith(keyProtocol)) ?? false
}
