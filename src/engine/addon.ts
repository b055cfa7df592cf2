// The Engine in C++: loads build/Release/parley.node and turns its packed events into one queue a request.

import { createRequire } from 'node:module'
import {
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  EventKindValues,
  FinishReasonValues,
  type Isa,
  type MemoryPlan,
  type ModelSpec,
  type TensorSource,
} from './contract.js'
import {
  type Engine,
  EngineFailure,
  EngineRefusal,
  type EngineRequest,
  NoTokenLeft,
  type PromptLogprobs,
  QueueTimeout,
  type TokenEvent,
} from './engine.js'
import { onAbort } from './on_abort.js'
import { PackedTokens, tokenBytes } from './packed_tokens.js'

/** What a checkpoint gives the engine. */
export interface ModelSource {
  spec: ModelSpec
  tensors: TensorSource[]
  /** Paths, indexed by TensorSource.file. */
  files: string[]
}

/** EngineOptions whose other fields take the defaults of native/contract.def. */
export type StartOptions = Partial<EngineOptions> & Pick<EngineOptions, 'max_model_len' | 'kv_cache_bytes'>

interface NativeEngine {
  submit(prompt: Int32Array, params: EngineRequest['sampling'], numChoices: number): number
  cancel(id: number): void
  acknowledge(id: number, numTokens: number): void
  stats(): EngineStats
  info(): EngineInfo
  close(): Promise<void>
}

interface Addon {
  loadEngine(
    spec: ModelSource['spec'],
    tensors: ModelSource['tensors'],
    files: string[],
    options: StartOptions,
    onProgress: (fraction: number) => void,
    onEvents: (events: ArrayBuffer, failure: string) => void,
  ): Promise<NativeEngine>
  stopLoading(): void
  planMemory(spec: ModelSpec, options: StartOptions): MemoryPlan
  forwardLogits(
    spec: ModelSource['spec'],
    tensors: ModelSource['tensors'],
    files: string[],
    options: StartOptions,
    tokens: Int32Array,
    prompt?: Int32Array,
  ): Float32Array
  calibrate(isa: Isa, numThreads: number, bytes: number, seconds: number): Calibration
  cudaDevices(count: number): Promise<CudaDevice[]>
  tryLockFile(fd: number): boolean
}

/** A GPU that the engine can compute on. */
export interface CudaDevice {
  name: string
  /** '9.0' */
  computeCapability: string
  totalBytes: number
  /** now, with this process's CUDA context there */
  freeBytes: number
  /** which multiplies where nothing has to be deterministic */
  hasCublasLt: boolean
}

/** What the machine can do at best, in 10^9 a second. */
export interface Calibration {
  /** bytes read from memory */
  readGBps: number
  /** float32 operations, a fused multiply-add counted as two */
  fmaGflops: number
}

const addon = loadAddon()

function loadAddon(): Addon {
  try {
    return createRequire(import.meta.url)('#addon')
  } catch (error) {
    throw new Error(`the native addon cannot be loaded; run \`npm run setup\` to build it. ${(error as Error).message}`)
  }
}

/**
 * Loads the weights and starts the engine's thread.
 * @param onProgress fraction of the weights that is loaded, 0 to 1
 * @throws Error naming file, tensor, what was expected and what was found
 */
export async function startEngine(
  model: ModelSource,
  options: StartOptions,
  onProgress: (fraction: number) => void = () => {},
): Promise<Engine> {
  const requests = new Map<number, EventQueue>()
  const native = await addon.loadEngine(
    model.spec,
    model.tensors,
    model.files,
    options,
    onProgress,
    (events, failure) => distribute(events, failure, requests),
  )
  return new NativeBackedEngine(native, requests)
}

/** Ends every load of this process, now and later, within some MB of weights: for a process that goes away. */
export function stopLoading(): void {
  addon.stopLoading()
}

/**
 * What startEngine would take of memory, exactly: the engine is built by the same figures.
 * @throws Error if the KV cache is too small for the shortest request
 */
export function planMemory(spec: ModelSpec, options: StartOptions): MemoryPlan {
  return addon.planMemory(spec, options)
}

/**
 * Logits of every position of one sequence, [tokens, vocab_size]: for tests against references.
 * @param prompt what the encoder reads, where there is one
 * @throws Error as startEngine does
 */
export function forwardLogits(
  model: ModelSource,
  options: StartOptions,
  tokens: Int32Array,
  prompt?: Int32Array,
): Float32Array {
  return addon.forwardLogits(model.spec, model.tensors, model.files, options, tokens, prompt)
}

/** Measures the machine for the benchmark: the best of the passes over `bytes` of memory that fit into `seconds`. */
export function calibrate(isa: Isa, numThreads: number, bytes: number, seconds: number): Calibration {
  return addon.calibrate(isa, numThreads, bytes, seconds)
}

/**
 * The first `count` GPUs, or as many as there are, one at least.
 * @throws Error with the reason why none can be used: no library, no driver, no GPU, or one that is too old
 */
export function cudaDevices(count: number): Promise<CudaDevice[]> {
  return addon.cudaDevices(count)
}

/**
 * Takes the exclusive lock (flock) of an open file without waiting. It ends when the file is closed or its process dies.
 * @returns whether it is ours now
 * @throws Error on a file system without locks
 */
export function tryLockFile(fd: number): boolean {
  return addon.tryLockFile(fd)
}

class NativeBackedEngine implements Engine {
  readonly info: EngineInfo
  readonly #native: NativeEngine
  readonly #requests: Map<number, EventQueue>
  #lastStats: EngineStats
  #closing: Promise<void> | undefined

  constructor(native: NativeEngine, requests: Map<number, EventQueue>) {
    this.#native = native
    this.#requests = requests
    this.info = native.info()
    this.#lastStats = native.stats()
  }

  submit(request: EngineRequest, signal?: AbortSignal): AsyncIterable<TokenEvent> {
    const [events] = this.submitChoices(request, 1, signal)
    return events as AsyncIterable<TokenEvent>
  }

  submitChoices(request: EngineRequest, count: number, signal?: AbortSignal): AsyncIterable<TokenEvent>[] {
    if (this.#closing) throw new EngineRefusal('the engine is closed')
    const max_unread = maxUnread(request, count)
    const queues = Array.from({ length: count }, () => new EventQueue(request, max_unread))
    if (signal?.aborted) {
      for (const queue of queues) queue.end()
      return queues
    }
    const firstId = this.#submit(request.prompt, { ...request.sampling, max_unread }, count)
    for (const [i, queue] of queues.entries()) this.#listen(firstId + i, queue, signal)
    return queues
  }

  #submit(prompt: Int32Array, sampling: EngineRequest['sampling'], count: number): number {
    try {
      return this.#native.submit(prompt, sampling, count)
    } catch (error) {
      throw new EngineRefusal((error as Error).message)
    }
  }

  #listen(id: number, queue: EventQueue, signal: AbortSignal | undefined): void {
    const cancel = () => {
      if (!this.#requests.delete(id)) return
      if (!this.#closing) this.#native.cancel(id)
      queue.end()
    }
    queue.onReturn = cancel
    queue.onRead = (numTokens) => {
      if (!this.#closing) this.#native.acknowledge(id, numTokens)
    }
    if (signal) queue.onEnd = onAbort(signal, cancel)
    this.#requests.set(id, queue)
  }

  stats(): EngineStats {
    if (!this.#closing) this.#lastStats = this.#native.stats()
    return this.#lastStats
  }

  close(): Promise<void> {
    this.#lastStats = this.stats()
    this.#closing ??= this.#native.close()
    return this.#closing
  }
}

const defaultUnreadBytes = 32 * 1024

/** A request that pauses and goes on at every token would be slow; so many are never too many. */
const leastUnread = 8

/** Tokens of each choice that may wait for the reader. */
function maxUnread({ sampling, max_unread_bytes = defaultUnreadBytes }: EngineRequest, numChoices: number): number {
  const { num_logprobs = -1, logprob_token_ids = [] } = sampling
  const bytes = tokenBytes(Math.max(0, num_logprobs, logprob_token_ids.length))
  return Math.max(leastUnread, Math.floor(max_unread_bytes / Math.max(1, numChoices) / bytes))
}

/** One request's events: pushed by the engine, pulled by one reader. */
class EventQueue implements AsyncIterable<TokenEvent>, AsyncIterator<TokenEvent> {
  onReturn: () => void = () => {}
  onRead: (numTokens: number) => void = () => {}
  onEnd: () => void = () => {}
  pooled: Float32Array | undefined
  cachedTokens: number | undefined
  #prompt: PromptLogprobs | undefined
  readonly #tokens = new PackedTokens()
  readonly #acknowledgeAfter: number
  #numUnacknowledged = 0
  #ended = false
  #failure: Error | undefined
  #reader: { resolve(result: IteratorResult<TokenEvent>): void; reject(error: Error): void } | undefined

  constructor({ prompt, sampling }: EngineRequest, maxUnread: number) {
    this.#acknowledgeAfter = Math.ceil(maxUnread / 2) // early enough that the engine need not pause for a reader who keeps up
    const numTop = sampling.num_prompt_logprobs ?? -1
    if (numTop >= 0) this.#prompt = emptyPromptLogprobs(prompt.length - 1, numTop)
  }

  [Symbol.asyncIterator](): AsyncIterator<TokenEvent> {
    return this
  }

  /** Takes a `prompt` event: log-probabilities of some of the prompt's tokens. They leave with the first token. */
  score(words: Int32Array, floats: Float32Array, start: number, end: number): void {
    if (!this.#prompt) return
    const numTop = words[start + 1] as number
    const { logprobs, ranks, top_tokens, top_logprobs } = this.#prompt
    let at = start + 2
    for (let i = (words[start] as number) - 1; at < end; i++) {
      logprobs[i] = floats[at++] as number
      ranks[i] = words[at++] as number
      for (let top = i * numTop; top < (i + 1) * numTop; top++) {
        top_tokens[top] = words[at++] as number
        top_logprobs[top] = floats[at++] as number
      }
    }
  }

  /** Takes a `token` event. */
  push(words: Int32Array, start: number, end: number): void {
    this.#tokens.push(words, start, end)
    this.#serve()
  }

  end(failure?: Error): void {
    this.#ended = true
    this.#failure = failure
    this.onEnd()
    this.#serve()
  }

  next(): Promise<IteratorResult<TokenEvent>> {
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject }
      this.#serve()
    })
  }

  /** Gives the reader that waits what there is. */
  #serve(): void {
    const reader = this.#reader
    if (!reader || (this.#tokens.empty && !this.#ended)) return
    this.#reader = undefined
    if (!this.#tokens.empty) reader.resolve({ done: false, value: this.#take() })
    else if (this.#failure) reader.reject(this.#failure)
    else reader.resolve({ done: true, value: undefined })
  }

  #take(): TokenEvent {
    const value = this.#tokens.shift()
    if (++this.#numUnacknowledged === this.#acknowledgeAfter && !this.#ended) {
      this.onRead(this.#numUnacknowledged)
      this.#numUnacknowledged = 0
    }
    // What came before the first token leaves with it.
    if (this.#prompt) value.prompt = this.#prompt
    if (this.pooled) value.pooled = this.pooled
    if (this.cachedTokens) value.cached_tokens = this.cachedTokens
    this.#prompt = this.pooled = this.cachedTokens = undefined
    return value
  }

  async return(): Promise<IteratorResult<TokenEvent>> {
    this.onReturn()
    return { done: true, value: undefined }
  }
}

function emptyPromptLogprobs(count: number, numTop: number): PromptLogprobs {
  return {
    logprobs: new Float32Array(count),
    ranks: new Int32Array(count),
    top_tokens: new Int32Array(count * numTop),
    top_logprobs: new Float32Array(count * numTop),
  }
}

/** Unpacks a step's events; the layout stands at PackedEvents in native/engine/events.h. */
function distribute(buffer: ArrayBuffer, failure: string, requests: Map<number, EventQueue>): void {
  const words = new Int32Array(buffer)
  const floats = new Float32Array(buffer)
  let at = 0
  while (at < words.length) {
    const id = words[at] as number
    const kind = EventKindValues[words[at + 1] as number]
    const start = at + 3
    const end = start + (words[at + 2] as number)
    at = end
    const queue = requests.get(id)
    if (!queue) continue // cancelled here while the step ran
    if (kind === 'prompt') {
      queue.score(words, floats, start, end)
    } else if (kind === 'pooled') {
      queue.pooled = floats.slice(start, end)
    } else if (kind === 'cached') {
      queue.cachedTokens = words[start]
    } else {
      const finish = FinishReasonValues[words[start] as number]
      if (finish !== 'none') requests.delete(id)
      if (finish === 'error') {
        queue.end(new EngineFailure(failure || noToken))
      } else if (finish === 'exhausted') {
        queue.end(new NoTokenLeft('the rules of the request forbid every token'))
      } else if (finish === 'timeout') {
        queue.end(new QueueTimeout('the request waited too long for its turn'))
      } else if (finish === 'cancelled') {
        queue.end()
      } else {
        queue.push(words, start, end)
        if (finish !== 'none') queue.end()
      }
    }
  }
  if (failure && words.length === 0) process.emitWarning(`engine: ${failure}`)
}

const noToken =
  'no token could be chosen for this request: its logits are NaN or minus infinity, or its lists of ids do not fit into the memory of the GPU'
