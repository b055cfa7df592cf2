// The real HTTP server over a real socket, above the real engine with a model folder: everything but the command line.

import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { type StartOptions, startEngine } from '../../src/engine/addon.js'
import { Encoder } from '../../src/generation/encoder.js'
import { Generation } from '../../src/generation/generate.js'
import { createHttpServer } from '../../src/http/server.js'
import { newState } from '../../src/http/state.js'
import { createLog } from '../../src/log.js'
import { Metrics } from '../../src/metrics.js'
import { loadModel } from '../../src/models/load.js'

/** Starts a server that ends with the test; returns its URL. */
export async function startRealServer(folder: string, options: Partial<StartOptions> = {}): Promise<string> {
  const model = await loadModel(folder)
  const engine = await startEngine(model, {
    dtype: 'float32',
    num_threads: 1,
    max_model_len: 256,
    kv_cache_bytes: 1 << 24,
    ...options,
  })
  const metrics = new Metrics(model.name)
  metrics.engineReady({ version: '0', ...engine.info })
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), metrics)
  const log = createLog('error', () => {}, false)
  const state = newState(
    { modelName: model.name, apiKey: null, rateLimits: null, allowedOrigins: [], metrics, log },
    null,
  )
  state.phase = { name: 'ready', engine, generation, created: model.created, fingerprint: 'parley-test' }
  const server = createHttpServer(state)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    server.closeAllConnections()
    server.close()
    await engine.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
