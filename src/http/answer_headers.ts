// What OpenAI's headers tell of every answer: how long it took, and how the rate limits stood.

import type { Ctx } from './context.js'
import { duration } from './rate_limits.js'

/** Sets openai-processing-ms, from the request's head to the first byte of its answer, and where limits are set x-ratelimit-*. */
export function setAnswerHeaders(c: Ctx): void {
  const { started, rate_limits = [] } = c.get('record')
  c.header('openai-processing-ms', String(Math.round(performance.now() - started)))
  for (const { name, limit, remaining, reset_seconds } of rate_limits) {
    c.header(`x-ratelimit-limit-${name}`, String(limit))
    c.header(`x-ratelimit-remaining-${name}`, String(remaining))
    c.header(`x-ratelimit-reset-${name}`, duration(reset_seconds))
  }
}
