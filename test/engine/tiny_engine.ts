// An engine with a tiny random model, and what it answers.

import { type ModelSource, type StartOptions, startEngine } from '../../src/engine/addon.js'
import type { Engine, EngineRequest, TokenEvent } from '../../src/engine/engine.js'
import { tinySpec } from './random_model.js'

export const pageBytes = 2 * tinySpec.num_layers * tinySpec.hidden_size * 16 * 4

export const defaults: StartOptions = {
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 128,
  kv_cache_bytes: 200 * pageBytes,
  pace_prompts: false, // what happens in a step would depend on the time that others took
  check_integrity: true,
}

export async function withEngine<T>(
  model: ModelSource,
  options: Partial<StartOptions>,
  body: (engine: Engine) => Promise<T>,
): Promise<T> {
  const engine = await startEngine(model, { ...defaults, ...options })
  try {
    return await body(engine)
  } finally {
    await engine.close()
  }
}

/** All events of a request, without cached_tokens: the one thing that depends on what came before. */
export async function collect(engine: Engine, request: EngineRequest, signal?: AbortSignal): Promise<TokenEvent[]> {
  const events: TokenEvent[] = []
  for await (const { cached_tokens: _, ...event } of engine.submit(request, signal)) events.push(event)
  return events
}

/** Prompt tokens that the prefix cache spared, and all events but for them. */
export async function collectCached(engine: Engine, request: EngineRequest): Promise<[number, TokenEvent[]]> {
  let cached = 0
  const events: TokenEvent[] = []
  for await (const { cached_tokens = 0, ...event } of engine.submit(request)) {
    cached += cached_tokens
    events.push(event)
  }
  return [cached, events]
}
