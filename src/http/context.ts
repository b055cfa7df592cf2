// What every handler can reach.

import type { HttpBindings } from '@hono/node-server'
import type { Context } from 'hono'
import type { Engine } from '../engine/engine.js'
import type { Generation } from '../generation/generate.js'
import type { Log } from '../log.js'
import type { Metrics } from '../metrics.js'
import type { Batches } from './batch_runner.js'
import type { FileStore } from './file_store.js'
import type { RateLimit, RateLimits } from './rate_limits.js'
import type { ResponseStore } from './response_store.js'
import type { Sockets } from './socket/sockets.js'
import type { Upgrade } from './socket/upgrade.js'
import type { Wire } from './wire.js'

/** What the server can do now. */
export type Phase =
  | { name: 'loading' /** 0 to 1 */; progress: number /** from a hub, not into memory yet */; downloading?: boolean }
  | {
      name: 'ready'
      generation: Generation
      engine: Engine /** seconds since 1970 */
      created: number
      fingerprint: string
    }
  | { name: 'draining'; engine: Engine | null }

/** The server's shared state; main.ts moves `phase` on. */
export interface ServerState {
  phase: Phase
  /** id of the model in the API */
  readonly modelName: string
  readonly apiKey: string | null
  /** null: there are none */
  readonly rateLimits: RateLimits | null
  readonly responses: ResponseStore
  readonly sockets: Sockets
  /** null: the server keeps no files */
  readonly files: FileStore | null
  /** there where files are */
  readonly batches: Batches | null
  /** web pages that may ask from a browser: origins, 'localhost' for every page of this machine, '*' for all */
  readonly allowedOrigins: readonly string[]
  readonly metrics: Metrics
  readonly log: Log
  /** requests that are not answered in full yet */
  inFlight: number
  /** called whenever inFlight falls to 0 */
  onIdle: (() => void) | null
}

/** What is known of one request, for its line in the log. */
export interface RequestRecord {
  id: string
  started: number
  prompt_tokens?: number
  completion_tokens?: number
  finish_reason?: string
  /** tokens that the rate limits keep for it until its end */
  reserved_tokens?: number
  /** how the limits stood when it was admitted or refused */
  rate_limits?: RateLimit[]
  /** the kind of error that ended it */
  error?: string
  /** the answer is a stream: whoever writes it says when it is complete */
  streaming: boolean
  end(status: number): void
}

export type Variables = { state: ServerState; record: RequestRecord; wire: Wire }
export type Env = { Bindings: HttpBindings & { upgrade?: Upgrade }; Variables: Variables }
export type Ctx = Context<Env>
