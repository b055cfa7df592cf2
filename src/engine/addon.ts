// The Engine in C++: loads build/Release/parley.node and turns its packed events into one queue a request.

import { createRequire } from 'node:module'
import {
  type EngineInfo,
  type EngineOptions,
  type EngineStats,
  FinishReasonValues,
  type Isa,
  type ModelSpec,
  type TensorSource,
} from './contract.js'
import { type Engine, EngineFailure, EngineRefusal, type EngineRequest, type TokenEvent } from './engine.js'

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
  submit(prompt: Int32Array, params: EngineRequest['sampling']): number
  cancel(id: number): void
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
  forwardLogits(
    spec: ModelSource['spec'],
    tensors: ModelSource['tensors'],
    files: string[],
    options: StartOptions,
    tokens: Int32Array,
  ): Float32Array
  calibrate(isa: Isa, numThreads: number, bytes: number, seconds: number): Calibration
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
    return createRequire(import.meta.url)('../../build/Release/parley.node')
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

/**
 * Logits of every position of one sequence, [tokens, vocab_size]: for tests against references.
 * @throws Error as startEngine does
 */
export function forwardLogits(model: ModelSource, options: StartOptions, tokens: Int32Array): Float32Array {
  return addon.forwardLogits(model.spec, model.tensors, model.files, options, tokens)
}

/** Measures the machine for the benchmark: the best of the passes over `bytes` of memory that fit into `seconds`. */
export function calibrate(isa: Isa, numThreads: number, bytes: number, seconds: number): Calibration {
  return addon.calibrate(isa, numThreads, bytes, seconds)
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
    if (this.#closing) throw new EngineRefusal('the engine is closed')
    const queue = new EventQueue()
    if (signal?.aborted) {
      queue.end()
      return queue
    }
    const id = this.#submit(request.prompt, request.sampling)
    const cancel = () => {
      if (!this.#requests.delete(id)) return
      if (!this.#closing) this.#native.cancel(id)
      queue.end()
    }
    queue.onReturn = cancel
    if (signal) {
      signal.addEventListener('abort', cancel, { once: true })
      queue.onEnd = () => signal.removeEventListener('abort', cancel)
    }
    this.#requests.set(id, queue)
    return queue
  }

  #submit(prompt: Int32Array, sampling: EngineRequest['sampling']): number {
    try {
      return this.#native.submit(prompt, sampling)
    } catch (error) {
      throw new EngineRefusal((error as Error).message)
    }
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

/** One request's events: pushed by the engine, pulled by one reader. */
class EventQueue implements AsyncIterable<TokenEvent>, AsyncIterator<TokenEvent> {
  onReturn: () => void = () => {}
  onEnd: () => void = () => {}
  #events: TokenEvent[] = []
  #next = 0
  #ended = false
  #failure: EngineFailure | undefined
  #wake: (() => void) | undefined;

  [Symbol.asyncIterator](): AsyncIterator<TokenEvent> {
    return this
  }

  push(event: TokenEvent): void {
    this.#events.push(event)
    this.#wake?.()
  }

  end(failure?: EngineFailure): void {
    this.#ended = true
    this.#failure = failure
    this.onEnd()
    this.#wake?.()
  }

  async next(): Promise<IteratorResult<TokenEvent>> {
    while (this.#next === this.#events.length) {
      if (this.#failure) throw this.#failure
      if (this.#ended) return { done: true, value: undefined }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      this.#wake = undefined
    }
    const value = this.#events[this.#next++] as TokenEvent
    if (this.#next === this.#events.length) {
      this.#events = []
      this.#next = 0
    }
    return { done: false, value }
  }

  async return(): Promise<IteratorResult<TokenEvent>> {
    this.onReturn()
    return { done: true, value: undefined }
  }
}

/** Unpacks a step's events; the layout stands at PackedEvents in native/engine/engine.h. */
function distribute(buffer: ArrayBuffer, failure: string, requests: Map<number, EventQueue>): void {
  const words = new Int32Array(buffer)
  const floats = new Float32Array(buffer)
  let at = 0
  while (at < words.length) {
    const [id, finishIndex, token, , rank, numTop] = words.subarray(at, at + 6) as unknown as number[] &
      [number, number, number, number, number, number]
    const logprob = floats[at + 3] as number
    at += 6
    const top: TokenEvent['top'] = []
    for (let i = 0; i < numTop; i++, at += 2)
      top.push({ token: words[at] as number, logprob: floats[at + 1] as number })
    const queue = requests.get(id)
    if (!queue) continue // cancelled here while the step ran
    const finish = FinishReasonValues[finishIndex] as TokenEvent['finish']
    if (finish !== 'none') requests.delete(id)
    if (finish === 'error') {
      queue.end(
        new EngineFailure(
          failure ||
            'no token could be chosen for this request: the logits are NaN or minus infinity, or all tokens are forbidden',
        ),
      )
    } else if (finish === 'cancelled') {
      queue.end()
    } else {
      queue.push({ token, logprob, rank, top, finish })
      if (finish !== 'none') queue.end()
    }
  }
  if (failure && words.length === 0) process.emitWarning(`engine: ${failure}`)
}
