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
  const plain = c.req.header('x-api-key') // Anthropic's clients
  if (!header && !plain) {
    throw new ApiError(
      'missing_api_key',
      'This server needs an API key. Send it in the header `Authorization: Bearer <key>`.',
    )
  }
  const given = header ? /^bearer +(.+)$/i.exec(header)?.[1] : plain
  if (given === undefined || !timingSafeEqual(digest(given), digest(apiKey))) {
    throw new ApiError('invalid_api_key', 'The API key is wrong.')
  }
}
