// An async iterable → server-sent events. The reader's pace is the pace: nothing is made before the socket takes it.

import type { Ctx } from './context.js'
import { tell } from './record.js'
import { timed } from './timing.js'

const encoder = new TextEncoder()

/**
 * Answers with one event per value and what the wire sends at the end.
 * The first value is awaited before anything is sent, so that an error before it still has its HTTP status; a later error is an event.
 * @param values is left early when the client goes away
 * @throws what `values` throws before its first value
 */
export async function sse(c: Ctx, values: AsyncGenerator<object>): Promise<Response> {
  const record = c.get('record')
  const state = c.get('state')
  const wire = c.get('wire')
  const bytes = (text: string) => encoder.encode(text)
  let next: Promise<IteratorResult<object>> | null = Promise.resolve(await values.next())
  record.streaming = true
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done, value } = await (next ?? values.next())
          next = null
          if (!done) {
            controller.enqueue(bytes(wire.event(value)))
            return
          }
        } catch (error) {
          const told = tell(error, state, record)
          controller.enqueue(bytes(wire.event(wire.error(told, record.id))))
        }
        if (wire.end !== '') controller.enqueue(bytes(wire.end))
        controller.close()
        record.end(200)
      },
      async cancel() {
        await values.return(undefined)
        record.end(499)
      },
    },
    { highWaterMark: 0 },
  )
  timed(c)
  return c.body(body, 200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache',
    // Reverse proxies such as nginx would collect the events otherwise.
    'x-accel-buffering': 'no',
  })
}
