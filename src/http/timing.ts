// How long the server took, as OpenAI's header says it.

import type { Ctx } from './context.js'

/** Sets openai-processing-ms: from the request's head to the first byte of its answer. */
export function timed(c: Ctx): void {
  c.header('openai-processing-ms', String(Math.round(performance.now() - c.get('record').started)))
}
