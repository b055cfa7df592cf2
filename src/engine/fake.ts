// The Engine interface with scripted tokens, for every test above it.

import type { EngineInfo, EngineStats, FinishReason } from './contract.js'
import {
  type Engine,
  EngineFailure,
  EngineRefusal,
  type EngineRequest,
  NoTokenLeft,
  QueueTimeout,
  type TokenEvent,
} from './engine.js'
import { onAbort } from './on_abort.js'

/** One line of a script: a token, a token with its log-probabilities, or how the engine fails at this place. */
export type ScriptLine = number | (Partial<TokenEvent> & { token: number }) | Error

/**
 * What the engine answers. A stop token ends it with 'stop', max_tokens with 'length', an Error with a failure; a script that is over
 * before any of these is a failure too. An async script decides when each token comes.
 */
export type Script = (request: EngineRequest) => Iterable<ScriptLine> | AsyncIterable<ScriptLine>

/** A request as the fake saw it. */
export interface SeenRequest extends EngineRequest {
  /** tokens that were taken out */
  num_generated: number
  state: 'running' | 'finished' | 'cancelled' | 'failed'
}

export class FakeEngine implements Engine {
  readonly info: EngineInfo
  /** every request, in the order of their arrival */
  readonly seen: SeenRequest[] = []
  /** what stats() reports as step_age_ms */
  stepAgeMs = 0
  /** what stats() reports as num_stopped_ranks */
  stoppedRanks = 0
  /** what stats() reports as num_queue_places */
  queuePlaces = 1
  /** refuses every request with this message when it is set */
  refusal: string | null = null
  closed = false
  readonly #script: Script
  readonly #waiters = new Set<() => void>()
  readonly #closing = new AbortController()

  constructor(script: Script, info: Partial<EngineInfo> = {}) {
    this.#script = script
    this.info = {
      num_parameters: 1000,
      weight_bytes: 2000,
      kv_cache_bytes: 65536,
      workspace_bytes: 4096,
      num_pages: 64,
      page_size: 16,
      max_model_len: 256,
      num_threads: 1,
      tensor_parallel_size: 1,
      rank_meeting: 'none',
      device: 'cpu',
      isa: 'baseline',
      dtype: 'float16',
      ...info,
    }
  }

  submit(request: EngineRequest, signal?: AbortSignal): AsyncIterable<TokenEvent> {
    if (this.refusal !== null) throw new EngineRefusal(this.refusal)
    if (this.closed) throw new EngineRefusal('the engine is closed')
    const seen: SeenRequest = { ...request, num_generated: 0, state: 'running' }
    this.seen.push(seen)
    return this.#run(seen, signal ?? new AbortController().signal)
  }

  submitChoices(request: EngineRequest, count: number, signal?: AbortSignal): AsyncIterable<TokenEvent>[] {
    const { choice = 0 } = request.sampling
    return Array.from({ length: count }, (_, i) =>
      this.submit({ ...request, sampling: { ...request.sampling, choice: choice + i } }, signal),
    )
  }

  stats(): EngineStats {
    const running = this.seen.filter(({ state }) => state === 'running')
    const sum = (count: (request: SeenRequest) => number) =>
      this.seen.reduce((total, request) => total + count(request), 0)
    return {
      num_requests_running: running.length,
      num_requests_waiting: 0,
      num_requests_paused: 0, // each token is made when the reader asks for it
      num_queue_places: this.queuePlaces,
      num_pages_used: running.length,
      num_pages: this.info.num_pages,
      num_steps: sum((request) => request.num_generated),
      bookkeeping_ms: 0,
      scratch_bytes: 0,
      num_preemptions: 0,
      num_prompt_tokens: sum((request) => request.prompt.length),
      num_prefix_queries: 0,
      num_prefix_hits: 0,
      num_generation_tokens: sum((request) => request.num_generated),
      num_stopped_ranks: this.stoppedRanks,
      step_age_ms: this.stepAgeMs,
    }
  }

  async close(): Promise<void> {
    this.closed = true
    this.#closing.abort()
  }

  /** Resolves as soon as `test` holds; looked at whenever a request begins, takes a token or ends. */
  async until(test: (engine: FakeEngine) => boolean): Promise<void> {
    while (!test(this)) {
      await new Promise<void>((resolve) => {
        this.#waiters.add(resolve)
      })
    }
  }

  #changed(): void {
    for (const wake of this.#waiters) wake()
    this.#waiters.clear()
  }

  async *#run(seen: SeenRequest, signal: AbortSignal): AsyncGenerator<TokenEvent> {
    const { max_tokens, ignore_eos = false } = seen.sampling
    const ends = new Set([
      ...(seen.sampling.stop_token_ids ?? []),
      ...((!ignore_eos && seen.sampling.eos_token_ids) || []),
    ])
    const end = (state: SeenRequest['state']) => {
      if (seen.state !== 'running') return
      seen.state = state
      this.#changed()
    }
    const aborted = new Promise<'aborted'>((resolve) => {
      const abort = () => {
        end('cancelled')
        resolve('aborted')
      }
      if (signal.aborted || this.#closing.signal.aborted) abort()
      onAbort(signal, abort)
      onAbort(this.#closing.signal, abort)
    })
    this.#changed()
    try {
      const lines = iterate(this.#script(seen))
      for (;;) {
        const line = await Promise.race([aborted, lines.next()])
        if (line === 'aborted') return
        if (line.done) throw new EngineFailure('the script is over before the request is')
        if (line.value instanceof Error) throw line.value
        const event = typeof line.value === 'number' ? { token: line.value } : line.value
        seen.num_generated++
        let finish: FinishReason = event.finish ?? 'none'
        if (finish === 'none' && ends.has(event.token)) finish = 'stop'
        if (finish === 'none' && seen.num_generated >= max_tokens) finish = 'length'
        if (finish === 'none') this.#changed()
        else end('finished')
        const token = max_tokens === 0 ? -1 : event.token
        yield { logprob: Number.NaN, rank: 0, top: [], ...event, token, finish }
        if (finish !== 'none') return
      }
    } catch (error) {
      end('failed')
      throw [EngineRefusal, EngineFailure, QueueTimeout, NoTokenLeft].some((type) => error instanceof type)
        ? error
        : new EngineFailure(String(error))
    } finally {
      end('cancelled')
    }
  }
}

async function* iterate(lines: Iterable<ScriptLine> | AsyncIterable<ScriptLine>): AsyncGenerator<ScriptLine> {
  yield* lines
}
