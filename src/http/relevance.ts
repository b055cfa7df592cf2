// POST /v1/score and /v1/rerank: how well texts go together, with the names of vLLM, Jina and Cohere.

import { z } from 'zod'
import { ApiError } from '../errors.js'
import type { Pair } from '../generation/relevance.js'
import { newId, now } from './answer.js'
import type { Call, Reply } from './call.js'
import { textsSchema } from './fields.js'
import { admit } from './rate_limits.js'
import { checkModel, needModel } from './ready.js'
import { accountFields, queueingFields } from './schema.js'
import { refuseUnsupported } from './unsupported.js'
import { fieldsOf, parse } from './validate.js'

/** How relevance is measured: see RelevanceOptions. */
const methodFields = {
  ...queueingFields,
  method: z.enum(['likelihood', 'yes_no']).optional(),
  template: z.string().max(65536).optional(),
  yes: z.string().min(1).max(256).optional(),
  no: z.string().min(1).max(256).optional(),
}

export const scoreSchema = z.object({
  ...accountFields,
  ...methodFields,
  model: z.string().optional(),
  text_1: textsSchema,
  text_2: textsSchema,
})

export const rerankSchema = z.object({
  ...accountFields,
  ...methodFields,
  model: z.string().optional(),
  query: z.string().min(1),
  documents: textsSchema,
  top_n: z.int().min(1).max(16777216).optional(),
  return_documents: z.boolean().optional(),
})

export interface RelevanceUsage {
  prompt_tokens: number
  total_tokens: number
}

export interface ScoreAnswer {
  id: string
  object: 'list'
  created: number
  model: string
  data: { index: number; object: 'score'; score: number }[]
  usage: RelevanceUsage
}

export interface RerankAnswer {
  id: string
  model: string
  /** the best first */
  results: { index: number; relevance_score: number; document?: { text: string } }[]
  usage: RelevanceUsage
}

/** text_1 is the query: one for all of text_2, or one for each. */
export async function createScore(call: Call, input: unknown): Promise<Reply> {
  const fields = fieldsOf(input)
  refuseUnsupported('relevance', fields)
  const body = parse(scoreSchema, fields, call.state.log)
  checkModel(call.state, body.model)
  const { text_1, text_2 } = body
  if (text_1.length !== 1 && text_1.length !== text_2.length) {
    throw new ApiError(
      'invalid_value',
      `'text_1' must have one text or as many as 'text_2', ${text_2.length}, but got ${text_1.length}.`,
      'text_1',
    )
  }
  const pairs = text_2.map((document, i) => ({ query: text_1[text_1.length === 1 ? 0 : i] ?? '', document }))
  const { scores, usage } = await measure(call, pairs, body)
  const answer: ScoreAnswer = {
    id: newId('score-'),
    object: 'list',
    created: now(),
    model: call.state.modelName,
    data: scores.map((score, index) => ({ index, object: 'score', score })),
    usage,
  }
  return { json: answer }
}

export async function createRerank(call: Call, input: unknown): Promise<Reply> {
  const fields = fieldsOf(input)
  refuseUnsupported('relevance', fields)
  const body = parse(rerankSchema, fields, call.state.log)
  checkModel(call.state, body.model)
  const { query, documents, top_n, return_documents = true } = body
  const pairs = documents.map((document) => ({ query, document }))
  const { scores, usage } = await measure(call, pairs, body)
  const results = documents.map((text, index) => ({
    index,
    relevance_score: scores[index] ?? 0,
    ...(return_documents ? { document: { text } } : {}),
  }))
  results.sort((a, b) => b.relevance_score - a.relevance_score)
  const answer: RerankAnswer = {
    id: newId('rerank-'),
    model: call.state.modelName,
    results: results.slice(0, top_n),
    usage,
  }
  return { json: answer }
}

async function measure(
  call: Call,
  pairs: readonly Pair[],
  { method = 'likelihood', template, yes, no, priority, cache_salt }: z.infer<z.ZodObject<typeof methodFields>>,
): Promise<{ scores: number[]; usage: RelevanceUsage }> {
  const { generation } = needModel(call.state)
  const options = { method, template, yes, no, priority, cache_salt }
  const prompts = await generation.prepareRelevance(pairs, options, call.signal)
  const numTokens = prompts.reduce((sum, { ids }) => sum + ids.length, 0)
  admit(call, numTokens)
  call.record.prompt_tokens = numTokens
  const scores = await generation.relevance(prompts, options, call.signal)
  return { scores, usage: { prompt_tokens: numTokens, total_tokens: numTokens } }
}
