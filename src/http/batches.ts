// /v1/batches

import { z } from 'zod'
import { ApiError } from '../errors.js'
import type { Batch, Batches } from './batch_runner.js'
import type { Call, Reply } from './call.js'
import type { Ctx, ServerState } from './context.js'
import { metadataSchema } from './fields.js'
import { needFiles } from './files.js'
import { page } from './page.js'
import { json } from './respond.js'
import { fieldsOf, parse } from './validate.js'

export const batchSchema = z.object({
  input_file_id: z.string(),
  endpoint: z.string(),
  completion_window: z.enum(['24h']),
  metadata: metadataSchema.optional(),
})

function needBatches(state: ServerState): Batches {
  needFiles(state)
  return state.batches as Batches // where there are files there are batches
}

export async function createBatch({ state }: Call, input: unknown): Promise<Reply> {
  const batches = needBatches(state)
  const fields = fieldsOf(input)
  if (fields.output_expires_after !== undefined) {
    throw new ApiError(
      'unsupported_parameter',
      "'output_expires_after' is not supported by this server yet. Leave it out.",
      'output_expires_after',
    )
  }
  const { input_file_id, endpoint, metadata } = parse(batchSchema, fields, state.log)
  if (!batches.endpoints.includes(endpoint)) {
    const known = batches.endpoints.map((path) => JSON.stringify(path)).join(', ')
    throw new ApiError('unsupported_value', `'endpoint' must be one of ${known}.`, 'endpoint')
  }
  return { json: batches.create(input_file_id, endpoint, metadata ?? null) }
}

export function listBatches(c: Ctx): Response {
  return json(c, page(c, needBatches(c.get('state')).list()))
}

export function retrieveBatch(c: Ctx): Response {
  return json(c, find(c))
}

export function cancelBatch(c: Ctx): Response {
  return json(c, needBatches(c.get('state')).cancel(c.req.param('id') ?? ''))
}

function find(c: Ctx): Batch {
  return needBatches(c.get('state')).get(c.req.param('id') ?? '')
}
