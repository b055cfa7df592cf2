// One page of a list, as OpenAI's cursors ask for it.

import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'

/**
 * Reads the query's `order` (desc unless told), `after` (an id) and `limit` (1 to `most`, `usual` unless told).
 * @param ascending all items, the oldest first
 * @throws ApiError when the query asks for something else
 */
export function page<T extends { id: string }>(c: Ctx, ascending: readonly T[], most = 100, usual = 20) {
  const order = c.req.query('order') ?? 'desc'
  if (order !== 'asc' && order !== 'desc') {
    throw new ApiError('invalid_value', `'order' must be "asc" or "desc".`, 'order')
  }
  const limit = Number(c.req.query('limit') ?? usual)
  if (!Number.isInteger(limit) || limit < 1 || limit > most) {
    throw new ApiError('invalid_value', `'limit' must be an integer from 1 to ${most}.`, 'limit')
  }
  const items = order === 'asc' ? ascending : ascending.toReversed()
  const after = c.req.query('after')
  const start = after === undefined ? 0 : items.findIndex(({ id }) => id === after) + 1
  if (after !== undefined && start === 0) {
    throw new ApiError('invalid_value', "'after' is no id of this list.", 'after')
  }
  const data = items.slice(start, start + limit)
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: start + data.length < items.length,
  }
}
