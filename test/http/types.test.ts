// Every answer and every chunk is what the clients' own types say it is. The compiler holds the first half, the clients the second.

import type Anthropic from '@anthropic-ai/sdk'
import type OpenAI from 'openai'
import type * as RealtimeApi from 'openai/resources/realtime/realtime'
import type OpenAI5 from 'openai-5'
import { expectTypeOf, test } from 'vitest'
import type { ErrorBody } from '../../src/errors.js'
import type { Batch } from '../../src/http/batch_runner.js'
import type { ChatAnswer, ChatChunk } from '../../src/http/chat.js'
import type { CompletionAnswer } from '../../src/http/completions.js'
import type { EmbeddingAnswer } from '../../src/http/embeddings.js'
import type { LegacyLogprobs } from '../../src/http/legacy_logprobs.js'
import type { Message, MessageEvent } from '../../src/http/messages.js'
import type { RateLimit } from '../../src/http/rate_limits.js'
import type { InputMessage, OutputMessage, ResponseEvent, ResponseObject } from '../../src/http/response_shapes.js'

/** The packages' types leave out the null with which an echoed prompt's log-probabilities begin. */
type WithoutEcho = Omit<CompletionAnswer, 'choices'> & {
  choices: (Omit<CompletionAnswer['choices'][number], 'logprobs'> & {
    logprobs:
      | (Omit<LegacyLogprobs, 'token_logprobs' | 'top_logprobs'> & {
          token_logprobs: Exclude<LegacyLogprobs['token_logprobs'][number], null>[]
          top_logprobs: Exclude<LegacyLogprobs['top_logprobs'][number], null>[]
        })
      | null
  })[]
}

/** The packages give numbers in place of the base64 that they ask for. */
type OnTheWire<T extends OpenAI.CreateEmbeddingResponse> = Omit<T, 'data'> & {
  data: (Omit<OpenAI.Embedding, 'embedding'> & { embedding: number[] | string })[]
}

test('the types of both majors of the openai package', () => {
  expectTypeOf<ChatAnswer>().toExtend<OpenAI.Chat.ChatCompletion>()
  expectTypeOf<ChatChunk>().toExtend<OpenAI.Chat.ChatCompletionChunk>()
  expectTypeOf<WithoutEcho>().toExtend<OpenAI.Completion>()
  expectTypeOf<EmbeddingAnswer>().toExtend<OnTheWire<OpenAI.CreateEmbeddingResponse>>()
  expectTypeOf<ResponseObject>().toExtend<OpenAI.Responses.Response>()
  expectTypeOf<ResponseEvent>().toExtend<OpenAI.Responses.ResponseStreamEvent>()
  expectTypeOf<InputMessage | OutputMessage>().toExtend<OpenAI.Responses.ResponseItem>()
  expectTypeOf<ErrorBody['error']>().toExtend<OpenAI.ErrorObject>()
  expectTypeOf<RateLimit>().toExtend<RealtimeApi.RateLimitsUpdatedEvent.RateLimit>()
  expectTypeOf<Batch>().toExtend<OpenAI.Batch>()
  expectTypeOf<ChatAnswer>().toExtend<OpenAI5.Chat.ChatCompletion>()
  expectTypeOf<ChatChunk>().toExtend<OpenAI5.Chat.ChatCompletionChunk>()
  expectTypeOf<WithoutEcho>().toExtend<OpenAI5.Completion>()
  expectTypeOf<ResponseObject>().toExtend<OpenAI5.Responses.Response>()
  expectTypeOf<ResponseEvent>().toExtend<OpenAI5.Responses.ResponseStreamEvent>()
})

test('the types of the Anthropic package', () => {
  expectTypeOf<Message>().toExtend<Anthropic.Message>()
  expectTypeOf<MessageEvent>().toExtend<Anthropic.RawMessageStreamEvent | { type: 'ping' }>()
})
