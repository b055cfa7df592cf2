// GET /openapi.json and /docs

import type { Ctx } from './context.js'
import { makeDocument, type OpenApiDocument } from './openapi/document.js'
import { makePage } from './openapi/page.js'
import { json } from './respond.js'
import type { Route } from './routes.js'

let made: OpenApiDocument | null = null

/** @param routes the same ones each time */
function document(routes: readonly Route[]): OpenApiDocument {
  made ??= makeDocument(routes)
  return made
}

export function showOpenApi(c: Ctx, routes: readonly Route[]): Response {
  return json(c, document(routes))
}

export function showDocs(c: Ctx, routes: readonly Route[]): Response {
  c.header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'")
  return c.html(makePage(document(routes)))
}
