// GET /v1/models and /v1/models/{id}

import type { Ctx } from './context.js'
import { checkModel, needModel } from './ready.js'

function card(c: Ctx) {
  const { generation, created } = needModel(c)
  return {
    id: c.get('state').modelName,
    object: 'model',
    created,
    owned_by: 'parley',
    max_model_len: generation.maxModelLen,
  }
}

export function listModels(c: Ctx): Response {
  return c.json({ object: 'list', data: [card(c)] })
}

/** Ids may hold slashes; the route gives them whole and decoded. */
export function retrieveModel(c: Ctx): Response {
  const model = card(c)
  checkModel(c, c.req.param('id'))
  return c.json(model)
}
