// Request bodies of completions and chats: unknown comes in, Valid* goes out.

import { z } from 'zod'
import { ApiError } from '../errors.js'
import type { RenderOptions } from '../generation/template.js'
import type { Log } from '../log.js'
import {
  contentSchema,
  logitBiasSchema,
  maxChoices,
  metadataSchema,
  promptSchema,
  roleSchema,
  seedSchema,
  stopSchema,
  templateVariablesSchema,
  tokenIdsSchema,
} from './fields.js'
import { refuseUnsupported } from './unsupported.js'
import { fieldsOf, missing, parse } from './validate.js'

const maxTokens = 16777216
/** Most probable tokens beside each, at most: OpenAI's number. */
const maxLogprobs = 20
const maxTokensSchema = z.int().min(1).max(maxTokens)

/** When a request gets its turn, and with whom it shares cached pages. */
export const queueingFields = {
  priority: z.int().min(-2147483648).max(2147483647).optional(),
  cache_salt: z.string().min(1).max(1024).optional(),
}

/** How tokens are chosen and where a text ends: alike wherever a body has these fields. */
export const samplingFields = {
  min_tokens: z.int().min(0).max(16777216).optional(),
  temperature: z.number().min(0).max(2).optional(),
  top_p: z.number().min(0).max(1).optional(),
  // -1 and 0 both mean all, as in vLLM.
  top_k: z.int().min(-1).max(4194304).optional(),
  min_p: z.number().min(0).max(1).optional(),
  seed: seedSchema.optional(),
  stop: stopSchema.optional(),
  stop_token_ids: tokenIdsSchema(1024).optional(),
  include_stop_str_in_output: z.boolean().optional(),
  skip_special_tokens: z.boolean().optional(),
  presence_penalty: z.number().min(-2).max(2).optional(),
  frequency_penalty: z.number().min(-2).max(2).optional(),
  repetition_penalty: z.number().min(0.001).max(1000).optional(),
  logit_bias: logitBiasSchema.optional(),
  allowed_token_ids: tokenIdsSchema(16384).optional(),
  bad_words: z.array(z.string().min(1).max(2048)).max(64).optional(),
  logprob_token_ids: tokenIdsSchema(32).optional(),
  ignore_eos: z.boolean().optional(),
  truncate_prompt_tokens: z.int().min(-1).max(16777216).optional(),
  add_special_tokens: z.boolean().optional(),
  ...queueingFields,
}

export type SamplingFields = z.infer<z.ZodObject<typeof samplingFields>>

/** How many choices are made, and which of them are given out. */
const choosingFields = {
  n: z.int().min(1).max(128).optional(),
  best_of: z.int().min(1).max(20).optional(),
  use_beam_search: z.boolean().optional(),
  length_penalty: z.number().min(-100).max(100).optional(),
  early_stopping: z.union([z.boolean(), z.literal('never')]).optional(),
}

export type ChoosingFields = z.infer<z.ZodObject<typeof choosingFields>>

/** Checked as OpenAI's specification says; they change nothing here. */
export const accountFields = {
  user: z.string().optional(),
  metadata: metadataSchema.optional(),
  store: z.boolean().optional(),
  service_tier: z.enum(['auto', 'default', 'flex', 'scale', 'priority']).optional(),
  safety_identifier: z.string().optional(),
  prompt_cache_key: z.string().optional(),
  prompt_cache_retention: z.string().optional(),
  prompt_cache_options: z
    .object({ mode: z.enum(['implicit', 'explicit']).nullish(), ttl: z.string().nullish() })
    .optional(),
}

/** OpenAI's word for how long answers should be: a hint, which only models know that were trained with it. */
export const verbositySchema = z.enum(['low', 'medium', 'high'])

const sharedFields = {
  ...samplingFields,
  ...choosingFields,
  ...accountFields,
  model: z.string().optional(),
  max_tokens: maxTokensSchema.optional(),
  prompt_logprobs: z.int().min(0).max(maxLogprobs).optional(),
  stream: z.boolean().optional(),
  stream_options: z
    .object({
      include_usage: z.boolean().nullish(),
      continuous_usage_stats: z.boolean().nullish(),
      include_obfuscation: z.boolean().nullish(),
    })
    .optional(),
  return_token_ids: z.boolean().optional(),
  return_tokens_as_token_ids: z.boolean().optional(),
}

export const completionSchema = z.object({
  ...sharedFields,
  prompt: promptSchema.optional(),
  // 0: the prompt is all.
  max_tokens: z.int().min(0).max(maxTokens).optional(),
  echo: z.boolean().optional(),
  logprobs: z.int().min(0).max(maxLogprobs).optional(),
})

/** Characters of a chat template that a request brings, at most. */
const maxTemplate = 64 * 1024

export const chatSchema = z.object({
  ...sharedFields,
  messages: z.array(z.object({ role: roleSchema, content: contentSchema, name: z.string().nullish() })).min(1),
  max_completion_tokens: maxTokensSchema.optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(maxLogprobs).optional(),
  add_generation_prompt: z.boolean().optional(),
  continue_final_message: z.boolean().optional(),
  chat_template: z.string().min(1).max(maxTemplate).optional(),
  chat_template_kwargs: templateVariablesSchema.optional(),
  reasoning_effort: z.string().max(64).optional(),
  // Hints: what they are for, a length and an earlier answer, is nothing that was promised.
  verbosity: verbositySchema.optional(),
  prediction: z.object({ type: z.literal('content'), content: contentSchema }).optional(),
  parallel_tool_calls: z.boolean().optional(),
  include_reasoning: z.boolean().optional(),
})

export type ValidCompletion = z.infer<typeof completionSchema>
export type ValidChat = Omit<z.infer<typeof chatSchema>, 'messages'> & {
  messages: { role: 'system' | 'user' | 'assistant'; content: string; name?: string }[]
}

/** @throws ApiError naming the first wrong field, and in its message up to four more */
export function parseCompletion(body: unknown, log: Log): ValidCompletion {
  const fields = fieldsOf(body)
  refuseUnsupported('completions', fields)
  if (fields.messages !== undefined && fields.prompt === undefined) {
    throw new ApiError(
      'unsupported_parameter',
      "'messages' belong to /v1/chat/completions; here the text is 'prompt'.",
      'messages',
    )
  }
  const valid = parse(completionSchema, fields, log)
  checkTogether(valid)
  const { n = 1, best_of = n } = valid
  const choices = (valid.prompt?.length ?? 1) * best_of
  if (choices > maxChoices) {
    throw new ApiError(
      'array_above_max_length',
      `'prompt' times '${best_of > n ? 'best_of' : 'n'}' must be at most ${maxChoices} completions, but got ${choices}.`,
      'prompt',
    )
  }
  return valid
}

/** @throws ApiError as parseCompletion */
export function parseChat(body: unknown, log: Log): ValidChat {
  const fields = fieldsOf(body)
  refuseUnsupported('chat', fields)
  // An assistant's tool_calls stand where its content would; say what is meant instead of "content is missing".
  const messages = Array.isArray(fields.messages) ? fields.messages : []
  for (const [i, message] of messages.entries()) {
    for (const name of ['tool_calls', 'function_call', 'audio']) {
      const value = (message as Record<string, unknown> | null)?.[name]
      // Clients send the messages that they got back, and other servers' have an empty list of calls.
      if (value != null && !(Array.isArray(value) && value.length === 0)) {
        throw new ApiError(
          'unsupported_parameter',
          `'messages.${i}.${name}' is not supported by this server yet.`,
          `messages.${i}.${name}`,
        )
      }
    }
  }
  if (fields.messages === undefined) throw missing('messages')
  const valid = parse(chatSchema, fields, log)
  checkTogether(valid)
  if (valid.continue_final_message === true && valid.add_generation_prompt === true) {
    throw new ApiError(
      'invalid_value',
      "'continue_final_message' and 'add_generation_prompt' cannot both be true.",
      'continue_final_message',
    )
  }
  if (valid.top_logprobs !== undefined && valid.top_logprobs > 0 && valid.logprobs !== true) {
    throw new ApiError('invalid_value', "'top_logprobs' needs 'logprobs' to be true.", 'top_logprobs')
  }
  return {
    ...valid,
    messages: valid.messages.map(({ role, content, name }) => ({
      role,
      content,
      ...(typeof name === 'string' ? { name } : {}),
    })),
  }
}

function checkTogether(valid: ValidCompletion | Omit<ValidChat, 'messages'>): void {
  if (valid.stream_options !== undefined && valid.stream !== true) {
    throw new ApiError('invalid_value', "'stream_options' needs 'stream' to be true.", 'stream_options')
  }
  checkChoosing(valid)
  if (valid.prompt_logprobs !== undefined && valid.stream === true) {
    throw new ApiError('invalid_value', "'prompt_logprobs' cannot be used together with 'stream'.", 'prompt_logprobs')
  }
  const most = ('max_completion_tokens' in valid ? valid.max_completion_tokens : undefined) ?? valid.max_tokens
  if (valid.min_tokens !== undefined && most !== undefined && valid.min_tokens > most) {
    throw new ApiError(
      'invalid_value',
      `'min_tokens' must be at most ${most}, the most tokens of this completion.`,
      'min_tokens',
    )
  }
  if (valid.logprob_token_ids !== undefined && !('logprobs' in valid && valid.logprobs !== false)) {
    throw new ApiError('invalid_value', "'logprob_token_ids' needs 'logprobs'.", 'logprob_token_ids')
  }
}

/** n, best_of and beam search. */
function checkChoosing({
  n = 1,
  best_of,
  use_beam_search,
  length_penalty,
  early_stopping,
  stream,
}: ChoosingFields & { stream?: boolean | undefined }): void {
  const wrong = (param: string, sentence: string) => new ApiError('invalid_value', `'${param}' ${sentence}.`, param)
  if (best_of !== undefined && best_of < n)
    throw wrong('best_of', `must be at least ${n}, the value of 'n', but got ${best_of}`)
  if (!use_beam_search) {
    if (length_penalty !== undefined && length_penalty !== 1)
      throw wrong('length_penalty', "needs 'use_beam_search' to be true")
    if (early_stopping !== undefined && early_stopping !== false)
      throw wrong('early_stopping', "needs 'use_beam_search' to be true")
  }
  // Which tokens are the answer's is only known at the end.
  if (stream && use_beam_search) throw wrong('stream', "cannot be used together with 'use_beam_search'")
  if (stream && best_of !== undefined && best_of > n)
    throw wrong('stream', "cannot be used together with a 'best_of' above 'n'")
}

/** How a chat becomes text. */
export function renderOptions(body: ValidChat): RenderOptions {
  const { continue_final_message = false, add_generation_prompt, reasoning_effort } = body
  return {
    template: body.chat_template,
    continueFinalMessage: continue_final_message,
    addGenerationPrompt: add_generation_prompt ?? !continue_final_message,
    // Not to reason is what a model does that cannot.
    variables: {
      ...(reasoning_effort === undefined || reasoning_effort === 'none' ? {} : { reasoning_effort }),
      ...body.chat_template_kwargs,
    },
  }
}
