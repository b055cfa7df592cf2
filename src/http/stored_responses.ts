// GET and DELETE /v1/responses/{id}, POST …/cancel, GET …/input_items

import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'
import { json } from './respond.js'
import type { InputMessage, OutputMessage } from './response_shapes.js'
import type { StoredResponse } from './response_store.js'

function find(c: Ctx): StoredResponse {
  return c.get('state').responses.get(c.req.param('id') ?? '')
}

export function retrieveResponse(c: Ctx): Response {
  if (c.req.query('stream') === 'true') {
    throw new ApiError('unsupported_parameter', "'stream' of a response that is kept is not supported yet.", 'stream')
  }
  return json(c, find(c).response)
}

export function deleteResponse(c: Ctx): Response {
  const { id } = find(c).response
  c.get('state').responses.delete(id)
  return json(c, { id, object: 'response', deleted: true })
}

/** Ends a response that runs in the background; one that has ended already stays as it is. */
export function cancelResponse(c: Ctx): Response {
  const stored = find(c)
  if (!stored.response.background) {
    throw new ApiError(
      'invalid_value',
      'Only a response of the background can be cancelled; leave the connection to end another.',
    )
  }
  if (stored.cancel !== null) {
    stored.cancel()
    stored.cancel = null
    stored.response = { ...stored.response, status: 'cancelled' }
  }
  return json(c, stored.response)
}

/** All that the model read, earlier turns included, one page at a time. */
export function listInputItems(c: Ctx): Response {
  const { response, conversation, numAnswers } = find(c)
  const items = conversation
    .slice(0, conversation.length - numAnswers)
    .map(({ role, content }, i): InputMessage | OutputMessage => {
      const id = `msg_${response.id.slice('resp_'.length)}_${i}`
      return role === 'assistant'
        ? {
            ...{ id, type: 'message', role, status: 'completed' },
            content: [{ type: 'output_text', text: content, annotations: [], logprobs: [] }],
          }
        : { id, type: 'message', role, status: 'completed', content: [{ type: 'input_text', text: content }] }
    })
  return json(c, page(c, items))
}

/** A page of a list, as OpenAI's cursors ask for it: `order` (desc unless told), `after` an id, `limit` 1 to 100. */
export function page<T extends { id: string }>(c: Ctx, ascending: readonly T[]) {
  const order = c.req.query('order') ?? 'desc'
  if (order !== 'asc' && order !== 'desc') {
    throw new ApiError('invalid_value', `'order' must be "asc" or "desc".`, 'order')
  }
  const limit = Number(c.req.query('limit') ?? 20)
  if (!Number.isInteger(limit) || limit < 1 || limit > 100) {
    throw new ApiError('invalid_value', "'limit' must be an integer from 1 to 100.", 'limit')
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
