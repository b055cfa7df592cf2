// What answers look like, for the OpenAPI document. test/http/openapi.test.ts holds real answers against them, and their types.

import { z } from 'zod'

const head = <const Kind extends string>(kind: Kind) => ({
  id: z.string(),
  object: z.literal(kind),
  created: z.int().describe('seconds since 1970'),
  model: z.string(),
  system_fingerprint: z.string().describe('the version, model, dtype and instruction set that answered'),
  service_tier: z.literal('default').optional(),
})

const usage = z.strictObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.strictObject({ cached_tokens: z.int() }),
  completion_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
})

const finishReason = z.enum(['stop', 'length'])
const stopReason = z
  .union([z.string(), z.int()])
  .optional()
  .describe('the stop string, or the stop token, that ended the text')
const tokenIds = z.array(z.int()).optional()

const promptLogprobs = z
  .array(
    z.record(z.string(), z.strictObject({ logprob: z.number(), rank: z.int(), decoded_token: z.string() })).nullable(),
  )
  .optional()
  .describe('for each token of the prompt, by token id; null for the first')

const legacyLogprobs = z.strictObject({
  text_offset: z.array(z.int()).describe('where each token begins, in code points of the text'),
  token_logprobs: z.array(z.number().nullable()),
  tokens: z.array(z.string()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()),
})

const completionChoice = {
  text: z.string(),
  index: z.int().describe('prompt × n + choice'),
  logprobs: legacyLogprobs.nullable(),
  finish_reason: finishReason,
  stop_reason: stopReason,
  prompt_logprobs: promptLogprobs,
  prompt_token_ids: tokenIds,
  token_ids: tokenIds,
}

export const completionAnswer = z.strictObject({
  ...head('text_completion'),
  choices: z.array(z.strictObject(completionChoice)),
  usage,
})

export const completionChunk = z.strictObject({
  ...head('text_completion'),
  choices: z.array(z.strictObject({ ...completionChoice, finish_reason: finishReason.nullable() })),
  usage: usage.nullable().optional(),
  obfuscation: z.string().optional(),
})

const chatToken = { token: z.string(), logprob: z.number(), bytes: z.array(z.int()) }
const chatTokens = z.array(z.strictObject({ ...chatToken, top_logprobs: z.array(z.strictObject(chatToken)) }))
const chatLogprobs = z.strictObject({ content: chatTokens, refusal: z.null() }).nullable()

export const chatAnswer = z.strictObject({
  ...head('chat.completion'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      message: z.strictObject({ role: z.literal('assistant'), content: z.string(), refusal: z.null() }),
      logprobs: chatLogprobs,
      finish_reason: finishReason,
      stop_reason: stopReason,
      token_ids: tokenIds,
    }),
  ),
  usage,
  prompt_token_ids: tokenIds,
  prompt_logprobs: promptLogprobs,
})

export const chatChunk = z.strictObject({
  ...head('chat.completion.chunk'),
  choices: z.array(
    z.strictObject({
      index: z.int(),
      delta: z.strictObject({ role: z.literal('assistant').optional(), content: z.string().optional() }),
      logprobs: chatLogprobs,
      finish_reason: finishReason.nullable(),
      stop_reason: stopReason,
      token_ids: tokenIds,
    }),
  ),
  usage: usage.nullable().optional(),
  obfuscation: z.string().optional(),
  prompt_token_ids: tokenIds,
})

export const renderAnswer = z.strictObject({
  object: z.literal('chat.completion.render'),
  model: z.string(),
  prompt: z.string(),
  prompt_token_ids: z.array(z.int()),
  num_prompt_tokens: z.int(),
  max_model_len: z.int(),
})

const inputUsage = z.strictObject({ prompt_tokens: z.int(), total_tokens: z.int() })

export const embeddingAnswer = z.strictObject({
  object: z.literal('list'),
  data: z.array(
    z.strictObject({
      object: z.literal('embedding'),
      index: z.int(),
      embedding: z.union([z.array(z.number()), z.string().describe('base64 of little-endian float32')]),
    }),
  ),
  model: z.string(),
  usage: inputUsage,
})

export const scoreAnswer = z.strictObject({
  id: z.string(),
  object: z.literal('list'),
  created: z.int(),
  model: z.string(),
  data: z.array(z.strictObject({ index: z.int(), object: z.literal('score'), score: z.number() })),
  usage: inputUsage,
})

export const rerankAnswer = z.strictObject({
  id: z.string(),
  model: z.string(),
  results: z
    .array(
      z.strictObject({
        index: z.int().describe('of the document'),
        relevance_score: z.number(),
        document: z.strictObject({ text: z.string() }).optional(),
      }),
    )
    .describe('the best first'),
  usage: inputUsage,
})

const outputText = z.strictObject({
  type: z.literal('output_text'),
  text: z.string(),
  annotations: z.tuple([]),
  logprobs: chatTokens,
})

const outputMessage = z.strictObject({
  id: z.string(),
  type: z.literal('message'),
  status: z.enum(['in_progress', 'completed', 'incomplete']),
  role: z.literal('assistant'),
  content: z.array(outputText),
})

export const responseAnswer = z.strictObject({
  id: z.string(),
  object: z.literal('response'),
  access_programs: z.null(),
  created_at: z.int(),
  status: z.enum(['queued', 'in_progress', 'completed', 'incomplete', 'failed', 'cancelled']),
  completed_at: z.int().nullable(),
  background: z.boolean(),
  error: z.strictObject({ code: z.literal('server_error'), message: z.string() }).nullable(),
  incomplete_details: z.strictObject({ reason: z.literal('max_output_tokens') }).nullable(),
  instructions: z.string().nullable(),
  max_output_tokens: z.int().nullable(),
  metadata: z.record(z.string(), z.string()),
  model: z.string(),
  output: z.array(outputMessage),
  output_text: z.string(),
  parallel_tool_calls: z.boolean(),
  previous_response_id: z.string().nullable(),
  service_tier: z.literal('default'),
  store: z.boolean(),
  temperature: z.number(),
  text: z.strictObject({ format: z.strictObject({ type: z.literal('text') }) }),
  tool_choice: z.enum(['auto', 'none']),
  tools: z.tuple([]),
  top_logprobs: z.int(),
  top_p: z.number(),
  truncation: z.literal('disabled'),
  usage: z
    .strictObject({
      input_tokens: z.int(),
      input_tokens_details: z.strictObject({ cached_tokens: z.int(), cache_write_tokens: z.int() }),
      output_tokens: z.int(),
      output_tokens_details: z.strictObject({ reasoning_tokens: z.int() }),
      total_tokens: z.int(),
    })
    .optional(),
  user: z.string().optional(),
})

const numbered = { sequence_number: z.int().describe('from 0 up, without a gap') }
const place = { item_id: z.string(), output_index: z.int(), content_index: z.int() }

export const responseEvent = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.enum([
      ...['response.created', 'response.in_progress', 'response.completed'],
      ...['response.incomplete', 'response.failed'],
    ] as const),
    response: responseAnswer,
    ...numbered,
  }),
  z.strictObject({
    type: z.enum(['response.output_item.added', 'response.output_item.done']),
    output_index: z.int(),
    item: outputMessage,
    ...numbered,
  }),
  z.strictObject({
    type: z.enum(['response.content_part.added', 'response.content_part.done']),
    ...place,
    part: outputText,
    ...numbered,
  }),
  z.strictObject({
    ...{ type: z.literal('response.output_text.delta'), ...place, delta: z.string(), logprobs: chatTokens },
    obfuscation: z.string().optional(),
    ...numbered,
  }),
  z.strictObject({
    ...{ type: z.literal('response.output_text.done'), ...place, text: z.string(), logprobs: chatTokens },
    ...numbered,
  }),
  z.strictObject({
    ...{ type: z.literal('error'), code: z.string().nullable(), message: z.string(), param: z.string().nullable() },
    ...numbered,
  }),
])

export const inputTokensAnswer = z.strictObject({
  object: z.literal('response.input_tokens'),
  input_tokens: z.int(),
})

export const deletedAnswer = z.strictObject({ id: z.string(), object: z.string(), deleted: z.literal(true) })

const nothing = z.null()

export const messageAnswer = z.strictObject({
  id: z.string(),
  type: z.literal('message'),
  role: z.literal('assistant'),
  model: z.string(),
  content: z.array(z.strictObject({ type: z.literal('text'), text: z.string(), citations: nothing })),
  stop_reason: z.enum(['end_turn', 'max_tokens', 'stop_sequence', 'model_context_window_exceeded']).nullable(),
  stop_sequence: z.string().nullable(),
  stop_details: nothing,
  container: nothing,
  diagnostics: nothing,
  usage: z.strictObject({
    input_tokens: z.int(),
    output_tokens: z.int(),
    cache_creation: nothing,
    cache_creation_input_tokens: z.int(),
    cache_read_input_tokens: z.int(),
    inference_geo: nothing,
    output_tokens_details: nothing,
    server_tool_use: nothing,
    service_tier: z.literal('standard'),
    speed: nothing,
  }),
})

const textBlock = messageAnswer.shape.content.element
const { stop_reason, stop_sequence, stop_details, container, usage: messageUsage } = messageAnswer.shape

export const messageEvent = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('message_start'), message: messageAnswer }),
  z.strictObject({ type: z.literal('content_block_start'), index: z.int(), content_block: textBlock }),
  z.strictObject({ type: z.literal('ping') }),
  z.strictObject({
    type: z.literal('content_block_delta'),
    index: z.int(),
    delta: z.strictObject({ type: z.literal('text_delta'), text: z.string() }),
  }),
  z.strictObject({ type: z.literal('content_block_stop'), index: z.int() }),
  z.strictObject({
    type: z.literal('message_delta'),
    delta: z.strictObject({ stop_reason, stop_sequence, stop_details, container }),
    usage: messageUsage,
  }),
  z.strictObject({ type: z.literal('message_stop') }),
])

export const countAnswer = z.strictObject({ input_tokens: z.int() })

export const fileAnswer = z.strictObject({
  id: z.string(),
  object: z.literal('file'),
  bytes: z.int(),
  created_at: z.int(),
  filename: z.string(),
  purpose: z.enum(['batch', 'batch_output']),
  status: z.literal('processed'),
})

export const batchAnswer = z.strictObject({
  id: z.string(),
  object: z.literal('batch'),
  endpoint: z.string(),
  errors: z
    .strictObject({
      object: z.literal('list'),
      data: z.array(
        z.strictObject({ code: z.string(), line: z.int(), message: z.string(), param: z.string().nullable() }),
      ),
    })
    .optional(),
  input_file_id: z.string(),
  completion_window: z.literal('24h'),
  status: z.string(),
  output_file_id: z.string().optional(),
  error_file_id: z.string().optional(),
  created_at: z.int(),
  in_progress_at: z.int().optional(),
  expires_at: z.int(),
  finalizing_at: z.int().optional(),
  completed_at: z.int().optional(),
  failed_at: z.int().optional(),
  expired_at: z.int().optional(),
  cancelling_at: z.int().optional(),
  cancelled_at: z.int().optional(),
  request_counts: z.strictObject({ total: z.int(), completed: z.int(), failed: z.int() }),
  metadata: z.record(z.string(), z.string()).nullable(),
})

/** A page of a list. */
export function listOf(item: z.ZodType) {
  return z.strictObject({
    object: z.literal('list'),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  })
}

export const tokenizeAnswer = z.strictObject({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.array(z.string()).nullable(),
})

export const detokenizeAnswer = z.strictObject({ prompt: z.string() })

export const modelAnswer = z.strictObject({
  id: z.string(),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.literal('parley'),
  max_model_len: z.int(),
})

export const modelsAnswer = z.strictObject({ object: z.literal('list'), data: z.array(modelAnswer) })

export const versionAnswer = z.strictObject({ version: z.string() })

export const errorAnswer = z.strictObject({
  error: z.strictObject({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string().nullable(),
  }),
})

export const anthropicErrorAnswer = z.strictObject({
  type: z.literal('error'),
  error: z.strictObject({ type: z.string(), message: z.string() }),
  request_id: z.string(),
})

export const statusAnswer = z.strictObject({ status: z.enum(['live', 'ready']) })
