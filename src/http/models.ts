// GET /v1/models and /v1/models/{id}

import type { Ctx, ServerState } from './context.js'
import { checkModel, needModel } from './ready.js'
import { json } from './respond.js'

function card(state: ServerState) {
  const { generation, created } = needModel(state)
  return {
    id: state.modelName,
    object: 'model',
    created,
    owned_by: 'parley',
    max_model_len: generation.maxModelLen,
  }
}

export function listModels(c: Ctx): Response {
  return json(c, { object: 'list', data: [card(c.get('state'))] })
}

/** Ids may hold slashes and a revision behind @; the route gives them whole and decoded. */
export function retrieveModel(c: Ctx): Response {
  const model = card(c.get('state'))
  checkModel(c.get('state'), c.req.param('id'))
  return json(c, model)
}
