// A template and variables → text. What takes long is done in a thread of its own, so that nobody else's tokens wait for it.

import { Worker } from 'node:worker_threads'
import { BudgetError, JinjaTemplate, type Limits, TemplateError } from './jinja/jinja.js'

/** What is done here and now: a few hundred messages, a few milliseconds. */
const here: Limits = { steps: 25_000, size: 1 << 21 }

/** What a template may do at all: ten thousands of messages, a second or two. */
const atMost: Limits = { steps: 2_000_000, size: 1 << 26 }

/** Memory of the thread in MiB; the limits keep a template far below it. */
const threadMemory = 512

/** A job for render_thread.ts. */
export interface RenderJob {
  id: number
  variables: Record<string, unknown>
  limits: Limits
}

/** Its answer. */
export type RenderReply = { id: number } & ({ text: string } | { error: string; stopped: boolean })

export class Renderer {
  readonly #source: string
  readonly #template: JinjaTemplate
  readonly #threadFile: URL | null
  readonly #now: (() => Date) | undefined
  #worker: Worker | null = null
  #nextId = 0
  readonly #waiting = new Map<number, { resolve(text: string): void; reject(error: Error): void }>()

  /**
   * @param source Jinja
   * @param threadFile compiled render_thread.js, or null to render everything in this thread
   * @param now the time that strftime_now shows here
   * @throws TemplateError where the source is no Jinja that is supported
   */
  constructor(source: string, threadFile: URL | null, now?: () => Date) {
    this.#source = source
    this.#template = new JinjaTemplate(source)
    this.#threadFile = threadFile
    this.#now = now
  }

  /** Every variable that the template reads. */
  get names(): ReadonlySet<string> {
    return this.#template.names
  }

  /** @throws TemplateError when the template refuses or fails; BudgetError when it does too much */
  async render(variables: Record<string, unknown>): Promise<string> {
    try {
      return this.#template.render(variables, this.#threadFile === null ? atMost : here, this.#now)
    } catch (error) {
      if (!(error instanceof BudgetError) || this.#threadFile === null) throw error
      return this.#renderInThread(this.#threadFile, variables)
    }
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  #renderInThread(threadFile: URL, variables: Record<string, unknown>): Promise<string> {
    const worker = this.#start(threadFile)
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      worker.postMessage({ id, variables, limits: atMost } satisfies RenderJob)
    })
  }

  #start(file: URL): Worker {
    if (this.#worker) return this.#worker
    const worker = new Worker(file, {
      workerData: this.#source,
      resourceLimits: { maxOldGenerationSizeMb: threadMemory },
    })
    worker.unref()
    worker.on('message', (reply: RenderReply) => {
      const waiting = this.#waiting.get(reply.id)
      this.#waiting.delete(reply.id)
      if ('text' in reply) waiting?.resolve(reply.text)
      else waiting?.reject(new (reply.stopped ? BudgetError : TemplateError)(reply.error))
    })
    const lost = (error: Error) => {
      if (this.#worker !== worker) return
      this.#worker = null
      for (const { reject } of this.#waiting.values()) reject(error)
      this.#waiting.clear()
    }
    worker.on('error', (error: NodeJS.ErrnoException) =>
      lost(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? new BudgetError('it needs too much memory') : error),
    )
    worker.on('exit', () => lost(new Error('the rendering thread ended')))
    this.#worker = worker
    return worker
  }
}
