// The whole API on one screen.

import { createChatCompletion } from './chat.js'
import { createCompletion } from './completions.js'
import type { Ctx } from './context.js'
import { live, metrics, ready } from './health.js'
import { listModels, retrieveModel } from './models.js'

export interface Route {
  method: 'GET' | 'POST'
  path: string
  /** may be asked without a key; every other route needs one */
  open?: true
  handle(c: Ctx): Response | Promise<Response>
}

export const routes: readonly Route[] = [
  { method: 'POST', path: '/v1/chat/completions', handle: createChatCompletion },
  { method: 'POST', path: '/v1/completions', handle: createCompletion },
  { method: 'GET', path: '/v1/models', handle: listModels },
  { method: 'GET', path: '/v1/models/:id{.+}', handle: retrieveModel },
  { method: 'GET', path: '/metrics', handle: metrics },
  { method: 'GET', path: '/health', open: true, handle: ready },
  { method: 'GET', path: '/health/live', open: true, handle: live },
  { method: 'GET', path: '/health/ready', open: true, handle: ready },
]
