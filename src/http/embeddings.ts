// POST /v1/embeddings: hidden states of the served model.

import { z } from 'zod'
import { ApiError } from '../errors.js'
import type { Call, Reply } from './call.js'
import { inputSchema } from './fields.js'
import { admit } from './rate_limits.js'
import { checkModel, needModel } from './ready.js'
import { accountFields, queueingFields } from './schema.js'
import { refuseUnsupported } from './unsupported.js'
import { fieldsOf, parse } from './validate.js'

export const embeddingSchema = z.object({
  ...accountFields,
  ...queueingFields,
  model: z.string().optional(),
  input: inputSchema,
  encoding_format: z.enum(['float', 'base64']).optional(),
  dimensions: z.int().min(1).max(16777216).optional(),
  pooling: z.enum(['mean', 'last']).optional(),
  normalize: z.boolean().optional(),
  truncate_prompt_tokens: z.int().min(-1).max(16777216).optional(),
  add_special_tokens: z.boolean().optional(),
})

export interface EmbeddingAnswer {
  object: 'list'
  data: { object: 'embedding'; index: number; embedding: number[] | string }[]
  model: string
  usage: { prompt_tokens: number; total_tokens: number }
}

export async function createEmbedding(call: Call, input: unknown): Promise<Reply> {
  const { generation } = needModel(call.state)
  const fields = fieldsOf(input)
  refuseUnsupported('embeddings', fields)
  const body = parse(embeddingSchema, fields, call.state.log)
  checkModel(call.state, body.model)
  const { dimensions, pooling = 'mean', normalize = true, encoding_format = 'float' } = body
  if (dimensions !== undefined && dimensions > generation.hiddenSize) {
    const most = generation.hiddenSize
    throw new ApiError(
      'integer_above_max_value',
      `'dimensions' must be at most ${most}, the size of this model's hidden states, but got ${dimensions}.`,
      'dimensions',
    )
  }
  const inputs = await generation.encodeInputs(body.input, body, call.signal)
  const num_tokens = inputs.reduce((sum, { length }) => sum + length, 0)
  admit(call, num_tokens)
  call.record.prompt_tokens = num_tokens
  const vectors = await generation.embed(inputs, pooling, body, call.signal)
  const answer: EmbeddingAnswer = {
    object: 'list',
    data: vectors.map((whole, index) => {
      const cut = whole.subarray(0, dimensions)
      const vector = normalize ? unit(cut) : cut
      return {
        object: 'embedding',
        index,
        embedding: encoding_format === 'base64' ? base64(vector) : Array.from(vector),
      }
    }),
    model: call.state.modelName,
    usage: { prompt_tokens: num_tokens, total_tokens: num_tokens },
  }
  return { json: answer }
}

/** A vector of length 1 in the same direction; zeros stay as they are. */
function unit(vector: Float32Array): Float32Array {
  const length = Math.hypot(...vector)
  return length === 0 ? vector : vector.map((x) => x / length)
}

/** Little-endian float32, as OpenAI sends it; every machine that Parley runs on stores them so. */
function base64({ buffer, byteOffset, byteLength }: Float32Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString('base64')
}
