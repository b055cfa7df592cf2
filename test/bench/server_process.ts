// The real server as a process: started, asked what it uses, stopped.

import { type ChildProcess, spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))
const watch = fileURLToPath(new URL('idle_loop.mjs', import.meta.url))

export class ServerProcess {
  readonly port = 20000 + Math.floor(Math.random() * 20000)
  readonly url = `http://127.0.0.1:${this.port}`
  readonly #process: ChildProcess

  /**
   * @param options of `parley serve`
   * @param watched its event loop is looked at a hundred times a second, for longestStallMs
   */
  constructor(options: string[], watched = false) {
    const args = [join(root, 'dist/main.js'), 'serve', '--device', 'cpu', '--port', String(this.port), ...options]
    this.#process = watched
      ? spawn(process.execPath, ['--import', watch, ...args], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] })
      : spawn(process.execPath, args, { stdio: 'ignore' })
  }

  /** The time at which `path` first answers 200. @throws Error when the server ends before */
  async answers(path: string): Promise<number> {
    while (this.#process.exitCode === null) {
      const ok = await fetch(this.url + path).then(
        (response) => response.ok,
        () => false,
      )
      if (ok) return performance.now()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    throw new Error(`the server ended with exit code ${this.#process.exitCode}`)
  }

  /** Resident bytes, from Linux's /proc; NaN elsewhere. */
  get residentBytes(): number {
    return Number(/VmRSS:\s+(\d+) kB/.exec(this.#read('status'))?.[1]) * 1024
  }

  /** Seconds of CPU that JavaScript's thread has used: requests, text and sockets, but not the engine. NaN but on Linux. */
  get frontEndSeconds(): number {
    return Number.parseFloat(this.#read(`task/${this.#process.pid}/schedstat`)) / 1e9
  }

  /** The longest delay of its event loop since it was last asked, in ms. It must be watched. */
  longestStallMs(): Promise<number> {
    return new Promise((resolve) => {
      this.#process.once('message', (ms) => resolve(ms as number))
      this.#process.send({})
    })
  }

  /**
   * Of the busiest thread but JavaScript's, which is the engine's: seconds in which it ran, and in which it stood in line for a core that
   * others had. NaN but on Linux.
   */
  get engineSeconds(): { ran: number; queued: number } {
    const threads = this.#threads().filter((id) => id !== String(this.#process.pid))
    const times = threads.map((id) => this.#read(`task/${id}/schedstat`).split(' ').map(Number))
    const [ran = Number.NaN, queued = Number.NaN] = times.sort(([a = 0], [b = 0]) => b - a)[0] ?? []
    return { ran: ran / 1e9, queued: queued / 1e9 }
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.kill('SIGTERM')
    await ended
  }

  #threads(): string[] {
    try {
      return readdirSync(`/proc/${this.#process.pid}/task`)
    } catch {
      return []
    }
  }

  #read(file: string): string {
    try {
      return readFileSync(`/proc/${this.#process.pid}/${file}`, 'utf8')
    } catch {
      return ''
    }
  }
}
