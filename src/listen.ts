// The HTTP server of this process: its state, its port, and how it goes.

import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { resolve } from 'node:path'
import type { ServeOptions } from './config.js'
import type { ServerState } from './http/context.js'
import { RateLimits } from './http/rate_limits.js'
import { createHttpServer } from './http/server.js'
import { newState } from './http/state.js'
import type { Log } from './log.js'
import { Metrics } from './metrics.js'

/** Running requests may take this long to finish after a signal to stop. */
const drainMs = 5000

export interface Listener {
  state: ServerState
  /** the URL of the server's root */
  address: string
}

/**
 * Listens until a signal comes, which ends the process.
 * @throws Error with a message for the person at the terminal
 */
export async function listen(options: ServeOptions, modelName: string, log: Log): Promise<Listener> {
  const state = newState(
    {
      modelName,
      apiKey: options.api_key,
      rateLimits: rateLimits(options),
      allowedOrigins: options.allowed_origins,
      metrics: new Metrics(modelName),
      log,
    },
    options.files_dir === null ? null : { folder: resolve(options.files_dir), limit: options.files_limit },
  )
  const server = createHttpServer(state)
  const address = await bind(server, options)
  stopOnSignals(server, state)
  return { state, address }
}

function rateLimits({ rate_limit_requests: requests, rate_limit_tokens: tokens }: ServeOptions): RateLimits | null {
  return requests === null && tokens === null ? null : new RateLimits({ requests, tokens })
}

/** @returns the URL of the server's root */
async function bind(server: Server, { host, port }: ServeOptions): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reasons: Record<string, string> = {
        EADDRINUSE: `port ${port} of ${host} is in use; choose another with --port, or stop the program that has it`,
        EACCES: `port ${port} of ${host} is not allowed for this user; choose one above 1023 with --port`,
        EADDRNOTAVAIL: `--host ${host} is no address of this machine`,
        ENOTFOUND: `--host ${host} is not known`,
      }
      reject(new Error(reasons[error.code ?? ''] ?? `cannot listen on ${host}, port ${port}: ${error.message}`))
    })
    server.listen(port, host, resolve)
  })
  const bound = server.address() as AddressInfo
  return `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
}

function stopOnSignals(server: Server, state: ServerState): void {
  let stopping = false
  const stop = async () => {
    if (stopping) process.exit(0)
    stopping = true
    const engine = state.phase.name === 'ready' ? state.phase.engine : null
    state.phase = { name: 'draining', engine }
    state.batches?.stop()
    server.close()
    server.closeIdleConnections()
    state.sockets.drain()
    await idle(state, drainMs)
    // What still runs now is told that the server goes, and gets a moment to hear it.
    await engine?.close()
    await idle(state, 500)
    process.exit(0)
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
}

/** Resolves when every request is answered, or after `ms`. */
async function idle(state: ServerState, ms: number): Promise<void> {
  if (state.inFlight === 0) return
  await new Promise<void>((resolve) => {
    state.onIdle = resolve
    setTimeout(resolve, ms)
  })
}
