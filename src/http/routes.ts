// The whole API on one screen.

import { cancelBatch, createBatch, listBatches, retrieveBatch } from './batches.js'
import { createChatCompletion, renderChat } from './chat.js'
import { createCompletion } from './completions.js'
import type { Ctx } from './context.js'
import { showDocs, showOpenApi } from './docs.js'
import { createEmbedding } from './embeddings.js'
import { deleteFile, fileContent, listFiles, retrieveFile, uploadFile } from './files.js'
import { live, metrics, ready } from './health.js'
import { countTokens, createMessage } from './messages.js'
import { listModels, retrieveModel } from './models.js'
import { createRerank, createScore } from './relevance.js'
import { post } from './respond.js'
import { countInputTokens, createResponse } from './responses.js'
import { checkRealtime, RealtimeSession } from './socket/realtime.js'
import { ResponsesSession } from './socket/responses.js'
import { webSocket } from './socket/session.js'
import { StreamSession } from './socket/stream.js'
import { cancelResponse, deleteResponse, listInputItems, retrieveResponse } from './stored_responses.js'
import { detokenize, tokenize, tokenizerInfo } from './tokenize.js'
import { showVersion } from './version.js'
import { anthropicWire, typedWire, type Wire } from './wire.js'

export interface Route {
  method: 'GET' | 'POST' | 'DELETE'
  path: string
  /** may be asked without a key; every other route needs one */
  open?: true
  /** how it writes errors and events; OpenAI's way unless told */
  wire?: Wire
  handle(c: Ctx): Response | Promise<Response>
}

export const routes: readonly Route[] = [
  { method: 'POST', path: '/v1/chat/completions', handle: post(createChatCompletion) },
  { method: 'POST', path: '/v1/completions', handle: post(createCompletion) },
  { method: 'POST', path: '/v1/embeddings', handle: post(createEmbedding) },
  { method: 'POST', path: '/v1/score', handle: post(createScore) },
  { method: 'POST', path: '/v1/rerank', handle: post(createRerank) },
  { method: 'POST', path: '/v1/chat/completions/render', handle: post(renderChat) },
  { method: 'POST', path: '/v1/responses', wire: typedWire, handle: post(createResponse) },
  { method: 'GET', path: '/v1/responses', handle: webSocket((socket) => new ResponsesSession(socket)) },
  { method: 'POST', path: '/v1/responses/input_tokens', handle: post(countInputTokens) },
  { method: 'GET', path: '/v1/responses/:id', handle: retrieveResponse },
  { method: 'DELETE', path: '/v1/responses/:id', handle: deleteResponse },
  { method: 'POST', path: '/v1/responses/:id/cancel', handle: cancelResponse },
  { method: 'GET', path: '/v1/responses/:id/input_items', handle: listInputItems },
  { method: 'POST', path: '/v1/messages', wire: anthropicWire, handle: post(createMessage) },
  { method: 'POST', path: '/v1/messages/count_tokens', wire: anthropicWire, handle: post(countTokens) },
  { method: 'GET', path: '/v1/stream', handle: webSocket((socket) => new StreamSession(socket)) },
  { method: 'GET', path: '/v1/realtime', handle: webSocket((socket) => new RealtimeSession(socket), checkRealtime) },
  { method: 'POST', path: '/v1/files', handle: uploadFile },
  { method: 'GET', path: '/v1/files', handle: listFiles },
  { method: 'GET', path: '/v1/files/:id', handle: retrieveFile },
  { method: 'DELETE', path: '/v1/files/:id', handle: deleteFile },
  { method: 'GET', path: '/v1/files/:id/content', handle: fileContent },
  { method: 'POST', path: '/v1/batches', handle: post(createBatch) },
  { method: 'GET', path: '/v1/batches', handle: listBatches },
  { method: 'GET', path: '/v1/batches/:id', handle: retrieveBatch },
  { method: 'POST', path: '/v1/batches/:id/cancel', handle: cancelBatch },
  { method: 'POST', path: '/tokenize', handle: post(tokenize) },
  { method: 'POST', path: '/detokenize', handle: post(detokenize) },
  { method: 'GET', path: '/tokenizer_info', handle: tokenizerInfo },
  { method: 'GET', path: '/v1/models', handle: listModels },
  { method: 'GET', path: '/v1/models/:id{.+}', handle: retrieveModel },
  { method: 'GET', path: '/version', handle: showVersion },
  { method: 'GET', path: '/openapi.json', open: true, handle: (c) => showOpenApi(c, routes) },
  { method: 'GET', path: '/docs', open: true, handle: (c) => showDocs(c, routes) },
  { method: 'GET', path: '/metrics', handle: metrics },
  { method: 'GET', path: '/health', open: true, handle: ready },
  { method: 'GET', path: '/health/live', open: true, handle: live },
  { method: 'GET', path: '/health/ready', open: true, handle: ready },
]
