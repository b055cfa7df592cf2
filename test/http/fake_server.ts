// The real HTTP server over a real socket, above a scripted engine.

import type { AddressInfo } from 'node:net'
import OpenAI from 'openai'
import { onTestFinished } from 'vitest'
import { FakeEngine, type Script } from '../../src/engine/fake.js'
import { Encoder } from '../../src/generation/encoder.js'
import { Generation } from '../../src/generation/generate.js'
import type { ServerState } from '../../src/http/context.js'
import type { RateLimits } from '../../src/http/rate_limits.js'
import { createHttpServer } from '../../src/http/server.js'
import { Sockets } from '../../src/http/socket/sockets.js'
import { newState } from '../../src/http/state.js'
import { createLog } from '../../src/log.js'
import { Metrics } from '../../src/metrics.js'
import type { Model } from '../../src/models/model.js'
import { EOS, fakeModel, word } from '../generation/fake_model.js'

export interface FakeServer {
  url: string
  port: number
  engine: FakeEngine
  state: ServerState
  /** the log's lines, parsed */
  logged: Record<string, unknown>[]
  client: OpenAI
  /** POST with a JSON body */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>
  /** values of the event stream, '[DONE]' included */
  stream(path: string, body: object): Promise<unknown[]>
}

/** What any endpoint may answer, as far as tests look into it. */
export interface Answer {
  error: { message: string; type: string; param: string | null; code: string | null }
  choices: [AnswerChoice, ...AnswerChoice[]]
  usage: unknown
}

interface AnswerChoice {
  index: number
  text: string
  message: { content: string }
  logprobs: { content: unknown[] }
  finish_reason: string | null
}

export async function json(response: Response): Promise<Answer> {
  return (await response.json()) as Answer
}

/** "Hello world" and the end. */
export const helloWorld: Script = () => [word('Hello'), word(' world'), EOS]

interface Options {
  script?: Script
  model?: Partial<Model>
  apiKey?: string
  rateLimits?: RateLimits
  allowedOrigins?: string[]
  storage?: { folder: string; limit: number }
  modelName?: string
  /** requests may bring their chat template */
  trustsTemplates?: boolean
  phase?: 'loading' | 'ready'
  /** between two pings of a WebSocket */
  heartbeatMs?: number
}

/** Starts a server that ends with the test. */
export async function startFakeServer(options: Options = {}): Promise<FakeServer> {
  const {
    script = helloWorld,
    apiKey = null,
    rateLimits = null,
    allowedOrigins = ['localhost'],
    storage = null,
    modelName = 'org/fake',
  } = options
  const model = fakeModel(options.model)
  const engine = new FakeEngine(script)
  const metrics = new Metrics(modelName)
  metrics.engineReady({ version: '0', ...engine.info })
  const logged: Record<string, unknown>[] = []
  const log = createLog('debug', (line) => logged.push(JSON.parse(line)), false)
  const state = newState({ modelName, apiKey, rateLimits, allowedOrigins, metrics, log }, storage)
  Object.assign(state, { sockets: new Sockets(metrics, options.heartbeatMs) })
  state.phase =
    options.phase === 'loading'
      ? { name: 'loading', progress: 0.427 }
      : {
          name: 'ready',
          engine,
          generation: new Generation(
            ...([model, engine, new Encoder(model.tokenizer, null), metrics, null, options.trustsTemplates] as const),
          ),
          created: model.created,
          fingerprint: 'parley-test',
        }
  state.batches?.start()
  onTestFinished(() => state.batches?.stop())
  const server = createHttpServer(state)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const url = `http://127.0.0.1:${port}`
  const post = (path: string, body: unknown, init: RequestInit = {}) =>
    fetch(url + path, {
      method: 'POST',
      body: typeof body === 'string' ? body : JSON.stringify(body),
      ...init,
      headers: { 'content-type': 'application/json', ...init.headers },
    })
  return {
    url,
    port,
    engine,
    state,
    logged,
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey: apiKey ?? 'none', maxRetries: 0 }),
    post,
    async stream(path, body) {
      const response = await post(path, { ...body, stream: true })
      const text = await response.text()
      return text
        .split('\n\n')
        .filter((event) => event !== '')
        .map((event) => {
          if (!event.startsWith('data: ')) throw new Error(`not an event: ${event}`)
          const data = event.slice('data: '.length)
          return data === '[DONE]' ? data : JSON.parse(data)
        })
    },
  }
}

/** Resolves once `test` holds. Looks again each time the event loop turns. */
export async function until(test: () => boolean): Promise<void> {
  while (!test()) await new Promise((resolve) => setImmediate(resolve))
}
