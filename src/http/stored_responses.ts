// GET and DELETE /v1/responses/{id}, POST …/cancel, GET …/input_items

import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'
import { page } from './page.js'
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
