// Every Prometheus series, declared once. Names and buckets are vLLM's where vLLM has the series, so that its boards, alerts and
// routers work unchanged.

import { readdirSync, statSync } from 'node:fs'
import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/** What /metrics asks the engine once a scrape. */
export interface EngineGauges {
  num_requests_running: number
  num_requests_waiting: number
  num_requests_paused: number
  num_pages_used: number
  num_pages: number
  num_preemptions: number
  num_prompt_tokens: number
  num_prefix_queries: number
  num_prefix_hits: number
  num_generation_tokens: number
}

const ttftBuckets = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
]
// vLLM's start at 10 ms; small models on a CPU are faster than that.
const itlBuckets = [
  0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20,
  40, 80,
]
const e2eBuckets = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
const tokenBuckets = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]

/**
 * Between two looks at the event loop. Beside an engine that has the caches each look costs up to 0.1 ms, so 10 ms, which node would
 * take, cost as much as half of what a token does where some hundred come in a second.
 */
const lagResolutionMs = 50

/** How a request's choice ended, as vLLM names it. */
export type FinishedReason = 'stop' | 'length' | 'abort' | 'error'

/** What /metrics tells of an engine once it runs. */
export interface EngineFacts {
  version: string
  dtype: string
  device: string
  isa: string
  tensor_parallel_size: number
  page_size: number
  num_pages: number
  weight_bytes: number
  kv_cache_bytes: number
  workspace_bytes: number
}

export class Metrics {
  /** what is of the engine, told with its labels */
  readonly #engine = new Registry()
  readonly #registry = new Registry()
  readonly #running
  readonly #waiting
  readonly #paused
  readonly #kvUsage
  readonly #promptTokens
  readonly #generationTokens
  readonly #preemptions
  readonly #prefixQueries
  readonly #prefixHits
  readonly #success
  readonly #rejected
  readonly #disconnects
  readonly #sockets
  readonly #lag: IntervalHistogram = monitorEventLoopDelay({ resolution: lagResolutionMs })
  #numBusy = 0
  readonly #ttft
  readonly #itl
  readonly #e2e
  readonly #requestPromptTokens
  readonly #requestGenerationTokens

  /** @param modelName the label `model_name` of every series of the engine */
  constructor(modelName: string) {
    // Added while the text is made: labels that are given with each observation cost more than the observation.
    this.#engine.setDefaultLabels({ model_name: modelName, engine: '0' })
    const registers = [this.#engine]
    const gauge = (name: string, help: string) => new Gauge({ name, help, registers })
    const counter = (name: string, help: string) => new Counter({ name, help, registers })
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name, help, registers, buckets })

    this.#running = gauge('vllm:num_requests_running', 'Requests that have KV pages.')
    this.#waiting = gauge('vllm:num_requests_waiting', 'Requests in the queue.')
    this.#paused = gauge('parley_requests_paused', 'Requests that wait for a slow reader.')
    this.#kvUsage = gauge('vllm:kv_cache_usage_perc', 'KV pages in use, from 0 to 1.')
    this.#promptTokens = counter('vllm:prompt_tokens_total', 'Tokens of the prompts that were read.')
    this.#generationTokens = counter('vllm:generation_tokens_total', 'Tokens generated.')
    this.#preemptions = counter('vllm:num_preemptions_total', 'Requests that lost their pages to others.')
    this.#prefixQueries = counter('vllm:prefix_cache_queries_total', 'Prompt tokens looked for in the prefix cache.')
    this.#prefixHits = counter('vllm:prefix_cache_hits_total', 'Prompt tokens found in the prefix cache.')
    this.#success = new Counter({
      name: 'vllm:request_success_total',
      help: 'Finished completions by reason.',
      registers,
      labelNames: ['finished_reason'],
    })
    this.#ttft = histogram('vllm:time_to_first_token_seconds', 'From the request to its first token.', ttftBuckets)
    this.#itl = histogram('vllm:inter_token_latency_seconds', 'Between two tokens of a completion.', itlBuckets)
    this.#e2e = histogram('vllm:e2e_request_latency_seconds', 'From the request to its last token.', e2eBuckets)
    this.#requestPromptTokens = histogram('vllm:request_prompt_tokens', 'Tokens of a prompt.', tokenBuckets)
    this.#requestGenerationTokens = histogram('vllm:request_generation_tokens', 'Tokens of a completion.', tokenBuckets)
    this.#rejected = new Counter({
      name: 'parley_requests_rejected_total',
      help: 'Requests answered with an error, by kind.',
      registers: [this.#registry],
      labelNames: ['code'],
    })
    this.#disconnects = new Counter({
      name: 'parley_client_disconnects_total',
      help: 'Clients that went away before their answer was complete.',
      registers: [this.#registry],
    })
    this.#sockets = new Gauge({
      name: 'parley_websockets_open',
      help: 'WebSockets that are open.',
      registers: [this.#registry],
    })
    this.#collectOfProcess()
    this.#observeLag()
  }

  /** process_* and nodejs_*, but for those that look at each open socket. */
  #collectOfProcess(): void {
    collectDefaultMetrics({ register: this.#registry, eventLoopMonitoringPrecision: 2 ** 31 - 1 })
    for (const name of ['nodejs_active_handles', 'nodejs_active_requests', 'nodejs_active_resources']) {
      this.#registry.removeSingleMetric(name)
      this.#registry.removeSingleMetric(`${name}_total`)
    }
    const name = 'process_open_fds'
    this.#registry.removeSingleMetric(name)
    new Gauge({
      ...{ name, help: 'Number of open file descriptors.', registers: [this.#registry] },
      collect() {
        const count = openFiles()
        if (count !== null) this.set(count)
      },
    })
  }

  /** prom-client's series of the event loop's delays, without its looks at a server that has nothing to do. */
  #observeLag(): void {
    const lag = this.#lag
    const gauge = (which: string, help: string, nanoseconds: () => number) => {
      const name = `nodejs_eventloop_lag_${which}_seconds`
      this.#registry.removeSingleMetric(name)
      const collect = () => series.set(lag.count === 0 ? 0 : nanoseconds() / 1e9)
      const series: Gauge = new Gauge({ name, help, registers: [this.#registry], collect })
    }
    gauge('min', 'The minimum recorded event loop delay.', () => lag.min)
    gauge('max', 'The maximum recorded event loop delay.', () => lag.max)
    gauge('mean', 'The mean of the recorded event loop delays.', () => lag.mean)
    gauge('stddev', 'The standard deviation of the recorded event loop delays.', () => lag.stddev)
    for (const percentile of [50, 90, 99]) {
      const help = `The ${percentile}th percentile of the recorded event loop delays.`
      gauge(`p${percentile}`, help, () => lag.percentile(percentile))
    }
  }

  /** A request began, or a WebSocket was opened: from now on the event loop is watched. */
  requestBegan(): void {
    if (this.#numBusy++ === 0) this.#lag.enable()
  }

  /** It ended: when none is left nothing wakes the server. */
  requestEnded(): void {
    if (--this.#numBusy === 0) this.#lag.disable()
  }

  /** Facts that are known once the engine runs. */
  engineReady(facts: EngineFacts): void {
    const info = (registry: Registry, name: string, help: string, labels: Record<string, string>) =>
      new Gauge({ name, help, registers: [registry], labelNames: Object.keys(labels) }).labels(labels).set(1)
    info(this.#engine, 'vllm:cache_config_info', 'Configuration of the KV cache.', {
      block_size: String(facts.page_size),
      num_gpu_blocks: String(facts.num_pages),
      cache_dtype: facts.dtype,
    })
    const memory = new Gauge({
      name: 'parley_engine_memory_bytes',
      help: 'Memory that the engine holds, by what it is for.',
      registers: [this.#registry],
      labelNames: ['kind'],
    })
    memory.set({ kind: 'weights' }, facts.weight_bytes)
    memory.set({ kind: 'kv_cache' }, facts.kv_cache_bytes)
    memory.set({ kind: 'workspace' }, facts.workspace_bytes)
    info(this.#registry, 'parley_build_info', 'What is running.', {
      version: facts.version,
      dtype: facts.dtype,
      device: facts.device,
      isa: facts.isa,
      tensor_parallel_size: String(facts.tensor_parallel_size),
    })
  }

  /** @param seconds from the request's arrival */
  firstToken(seconds: number): void {
    this.#ttft.observe(seconds)
  }

  /** @param seconds since the completion's previous token */
  nextToken(seconds: number): void {
    this.#itl.observe(seconds)
  }

  /** One completion ended. @param seconds from the request's arrival */
  finished(reason: FinishedReason, seconds: number, promptTokens: number, generationTokens: number): void {
    this.#success.inc({ finished_reason: reason })
    this.#e2e.observe(seconds)
    this.#requestPromptTokens.observe(promptTokens)
    this.#requestGenerationTokens.observe(generationTokens)
  }

  /** @param kind a row of errors.ts, never a client's text */
  rejected(kind: string): void {
    this.#rejected.inc({ code: kind })
  }

  clientGone(): void {
    this.#disconnects.inc()
  }

  socketOpened(): void {
    this.#sockets.inc()
    this.requestBegan()
  }

  socketClosed(): void {
    this.#sockets.dec()
    this.requestEnded()
  }

  /** The text of /metrics. @param stats of the engine, or null while there is none */
  async render(stats: EngineGauges | null): Promise<{ contentType: string; text: string }> {
    this.#running.set(stats?.num_requests_running ?? 0)
    this.#waiting.set(stats?.num_requests_waiting ?? 0)
    this.#paused.set(stats?.num_requests_paused ?? 0)
    this.#kvUsage.set(stats && stats.num_pages > 0 ? stats.num_pages_used / stats.num_pages : 0)
    this.#follow(this.#promptTokens, stats?.num_prompt_tokens ?? 0)
    this.#follow(this.#generationTokens, stats?.num_generation_tokens ?? 0)
    this.#follow(this.#preemptions, stats?.num_preemptions ?? 0)
    this.#follow(this.#prefixQueries, stats?.num_prefix_queries ?? 0)
    this.#follow(this.#prefixHits, stats?.num_prefix_hits ?? 0)
    const texts = [await this.#engine.metrics(), await this.#registry.metrics()]
    this.#lag.reset()
    return { contentType: this.#registry.contentType, text: texts.join('\n') }
  }

  /** The engine counts; the series shows its count. */
  #follow(counter: Counter, total: number): void {
    counter.reset()
    counter.inc(total)
  }
}

/** File descriptors of this process; null where /proc does not tell. */
function openFiles(): number | null {
  try {
    // Linux 6.2 and newer say how many there are; older ones say 0.
    return statSync('/proc/self/fd').size || readdirSync('/proc/self/fd').length
  } catch {
    return null
  }
}
