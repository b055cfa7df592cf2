// Between an endpoint and the socket: body in, JSON or events out, and the headers of both.

import { setAnswerHeaders } from './answer_headers.js'
import { readJson } from './body.js'
import type { Endpoint } from './call.js'
import type { Ctx } from './context.js'
import { sse } from './sse.js'

/** The handler of a POST with a JSON body. */
export function post(endpoint: Endpoint): (c: Ctx) => Promise<Response> {
  return async (c) => {
    const body = await readJson(c)
    const call = { state: c.get('state'), record: c.get('record'), signal: c.req.raw.signal }
    const reply = await endpoint(call, body)
    return 'json' in reply ? json(c, reply.json) : sse(c, reply.events)
  }
}

/** A JSON answer. */
export function json(c: Ctx, value: object, status: 200 | 400 = 200): Response {
  setAnswerHeaders(c)
  return c.json(value, status)
}
