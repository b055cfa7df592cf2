// The program as a user starts it.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { vi } from 'vitest'

const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

/** A running `parley serve`, and all that it printed so far. */
export class Server {
  output = ''
  readonly exited: Promise<number | null>

  private constructor(readonly process: ChildProcessByStdio<null, Readable, Readable>) {
    for (const stream of [process.stdout, process.stderr])
      stream.setEncoding('utf8').on('data', (text) => (this.output += text))
    this.exited = new Promise((resolve) => process.on('close', resolve))
  }

  /** On the CPU, whatever else the machine has. */
  static start(...options: string[]): Server {
    return Server.startWith({ PARLEY_DEVICE: 'cpu' }, ...options)
  }

  /** @param environment beside this process's own */
  static startWith(environment: Record<string, string>, ...options: string[]): Server {
    const env = { ...process.env, ...environment }
    return new Server(spawn(process.execPath, [main, 'serve', ...options], { stdio: ['ignore', 'pipe', 'pipe'], env }))
  }

  /** The address that the log names, once /health/ready answers 200. */
  async ready(): Promise<string> {
    const url = await vi.waitUntil(() => /http:\/\/127\.0\.0\.1:\d+/.exec(this.output)?.[0], { timeout: 30_000 })
    const status = () =>
      fetch(`${url}/health/ready`).then(
        (response) => response.status,
        () => 0,
      )
    await vi.waitUntil(async () => (await status()) === 200, { timeout: 30_000 })
    return url
  }

  async stop(): Promise<number | null> {
    this.process.kill('SIGTERM')
    return this.exited
  }
}
