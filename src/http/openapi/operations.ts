// What the document says of each route.

import type { z } from 'zod'
import { batchSchema } from '../batches.js'
import { embeddingSchema } from '../embeddings.js'
import { countSchema, messageSchema } from '../messages.js'
import { rerankSchema, scoreSchema } from '../relevance.js'
import { responseSchema } from '../response_schema.js'
import { chatSchema, completionSchema } from '../schema.js'
import { detokenizeSchema, textSchema } from '../tokenize.js'
import * as answers from './answers.js'

export interface Operation {
  summary: string
  /** of a JSON body */
  body?: z.ZodObject
  /** of a JSON answer; a content type, or what the connection becomes */
  answer: z.ZodType | 'application/json' | 'application/octet-stream' | 'text/plain' | 'text/html' | 'websocket'
  /** of the events of a stream; absent where there is none */
  chunk?: z.ZodType
  /** parameters of the query: name → meaning */
  query?: Readonly<Record<string, string>>
  /** errors have Anthropic's shape */
  anthropic?: true
}

const pages = { after: 'the id behind which the page begins', limit: '1 to 100', order: 'asc or desc' }

/** Method and path of routes.ts → what it does. */
export const operations: Readonly<Record<string, Operation>> = {
  'POST /v1/chat/completions': {
    summary: 'Answers a chat.',
    body: chatSchema,
    answer: answers.chatAnswer,
    chunk: answers.chatChunk,
  },
  'POST /v1/completions': {
    summary: 'Continues texts.',
    body: completionSchema,
    answer: answers.completionAnswer,
    chunk: answers.completionChunk,
  },
  'POST /v1/embeddings': { summary: 'Texts as vectors.', body: embeddingSchema, answer: answers.embeddingAnswer },
  'POST /v1/score': { summary: 'How well texts go together.', body: scoreSchema, answer: answers.scoreAnswer },
  'POST /v1/rerank': { summary: 'Documents, the best first.', body: rerankSchema, answer: answers.rerankAnswer },
  'POST /v1/chat/completions/render': {
    summary: 'The text and token ids that a chat becomes.',
    body: chatSchema,
    answer: answers.renderAnswer,
  },
  'POST /v1/responses': {
    summary: "OpenAI's responses.",
    body: responseSchema,
    answer: answers.responseAnswer,
    chunk: answers.responseEvent,
  },
  'GET /v1/responses': { summary: 'A WebSocket: response.create in, its events out.', answer: 'websocket' },
  'POST /v1/responses/input_tokens': {
    summary: 'How many tokens a response would read.',
    body: responseSchema,
    answer: answers.inputTokensAnswer,
  },
  'GET /v1/responses/:id': { summary: 'A response that was kept.', answer: answers.responseAnswer },
  'DELETE /v1/responses/:id': { summary: 'Forgets a response.', answer: answers.deletedAnswer },
  'POST /v1/responses/:id/cancel': { summary: 'Ends a response in the background.', answer: answers.responseAnswer },
  'GET /v1/responses/:id/input_items': {
    summary: 'What a response has read.',
    answer: 'application/json',
    query: pages,
  },
  'POST /v1/messages': {
    summary: "Anthropic's messages.",
    body: messageSchema,
    answer: answers.messageAnswer,
    chunk: answers.messageEvent,
    anthropic: true,
  },
  'POST /v1/messages/count_tokens': {
    summary: 'How many tokens a message would read.',
    body: countSchema,
    answer: answers.countAnswer,
    anthropic: true,
  },
  'GET /v1/stream': { summary: 'A WebSocket: many answers over one connection.', answer: 'websocket' },
  'GET /v1/realtime': { summary: "A WebSocket: OpenAI's Realtime protocol for text.", answer: 'websocket' },
  'POST /v1/files': {
    summary: 'Uploads a file: multipart/form-data with file and purpose.',
    answer: answers.fileAnswer,
  },
  'GET /v1/files': {
    summary: 'The files.',
    answer: answers.listOf(answers.fileAnswer),
    query: { ...pages, limit: '1 to 10,000', purpose: 'batch or batch_output' },
  },
  'GET /v1/files/:id': { summary: 'A file.', answer: answers.fileAnswer },
  'DELETE /v1/files/:id': { summary: 'Deletes a file.', answer: answers.deletedAnswer },
  'GET /v1/files/:id/content': { summary: "A file's content.", answer: 'application/octet-stream' },
  'POST /v1/batches': { summary: 'Begins a batch.', body: batchSchema, answer: answers.batchAnswer },
  'GET /v1/batches': { summary: 'The batches.', answer: answers.listOf(answers.batchAnswer), query: pages },
  'GET /v1/batches/:id': { summary: 'A batch.', answer: answers.batchAnswer },
  'POST /v1/batches/:id/cancel': { summary: 'Ends a batch.', answer: answers.batchAnswer },
  'POST /tokenize': {
    summary: 'Text to token ids; a chat too, with messages in place of the prompt.',
    body: textSchema,
    answer: answers.tokenizeAnswer,
  },
  'POST /detokenize': { summary: 'Token ids to text.', body: detokenizeSchema, answer: answers.detokenizeAnswer },
  'GET /tokenizer_info': {
    summary: 'What clients ask before they let this server tokenize.',
    answer: 'application/json',
  },
  'GET /v1/models': { summary: 'The served model.', answer: answers.modelsAnswer },
  'GET /v1/models/:id{.+}': { summary: 'The served model.', answer: answers.modelAnswer },
  'GET /version': { summary: 'The version of the server.', answer: answers.versionAnswer },
  'GET /metrics': { summary: "Prometheus metrics, with vLLM's names.", answer: 'text/plain' },
  'GET /health': { summary: 'Can this server answer now?', answer: answers.statusAnswer },
  'GET /health/live': { summary: 'Is this process worth keeping?', answer: answers.statusAnswer },
  'GET /health/ready': { summary: 'Can this server answer now?', answer: answers.statusAnswer },
  'GET /openapi.json': { summary: 'This document.', answer: 'application/json' },
  'GET /docs': { summary: 'This document, to read.', answer: 'text/html' },
}
