// GET /version

import { version } from '../config.js'
import type { Ctx } from './context.js'
import { json } from './respond.js'

export function showVersion(c: Ctx): Response {
  return json(c, { version })
}
