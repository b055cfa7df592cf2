// GET /health, /health/live, /health/ready and /metrics

import type { Engine } from '../engine/engine.js'
import { ApiError } from '../errors.js'
import type { Ctx } from './context.js'
import { needModel } from './ready.js'

/** A step takes milliseconds to seconds; an engine that has not moved for this long never will. */
const stalledAfterMs = 60_000

/** Can this server answer requests now? */
export function ready(c: Ctx): Response {
  checkMoves(needModel(c.get('state')).engine)
  return c.json({ status: 'ready' })
}

/** Is this process worth keeping? Loading and shutting down are no faults. */
export function live(c: Ctx): Response {
  const { phase } = c.get('state')
  if (phase.name === 'ready') checkMoves(phase.engine)
  return c.json({ status: 'live' })
}

function checkMoves(engine: Engine): void {
  const { num_stopped_ranks, step_age_ms } = engine.stats()
  if (num_stopped_ranks > 0)
    throw new ApiError(
      'engine_stalled',
      'The engine has stopped, a rank of it or a GPU: this server must be started again.',
    )
  if (step_age_ms > stalledAfterMs)
    throw new ApiError('engine_stalled', `The engine has made no progress for ${stalledAfterMs / 1000} seconds.`)
}

export async function metrics(c: Ctx): Promise<Response> {
  const { phase, metrics } = c.get('state')
  const { text, contentType } = await metrics.render(phase.name === 'loading' ? null : (phase.engine?.stats() ?? null))
  return c.body(text, 200, { 'content-type': contentType })
}
