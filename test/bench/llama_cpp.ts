// llama.cpp's own programs, as its project builds them: what it decodes and reads in a second on a GGUF file, and its server.

import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export class LlamaCpp {
  /**
   * @param folder of `llama-batched-bench`, `llama-bench` and `llama-server`
   * @param model a GGUF file
   */
  constructor(
    readonly folder: string,
    readonly model: string,
    readonly threads: number,
  ) {}

  /** Tokens a second of each batch size: `promptTokens` keys at first, then `tokens` steps. */
  async decode(batches: number[], promptTokens: number, tokens: number): Promise<Map<number, number>> {
    const context = Math.max(...batches) * (promptTokens + tokens + 16)
    const options = {
      '-c': context,
      '-npp': promptTokens,
      '-ntg': tokens,
      '-npl': batches.join(','),
      '--output-format': 'jsonl',
    }
    const output = await this.#output('llama-batched-bench', options)
    const lines = output.split('\n').filter((line) => line.startsWith('{'))
    const speeds = new Map(lines.map((line) => JSON.parse(line)).map((of) => [Number(of.pl), Number(of.speed_tg)]))
    const missing = batches.find((batch) => !(Number(speeds.get(batch)) > 0))
    if (missing !== undefined)
      throw new Error(`llama-batched-bench told no speed of batch ${missing}: ${output.slice(0, 300)}`)
    return speeds
  }

  /** Prompt tokens a second of a prompt of each length. */
  async prefill(lengths: number[]): Promise<Map<number, number>> {
    const options = { '-p': lengths.join(','), '-n': 0, '-r': 1, '-o': 'json' }
    const results: { n_prompt: number; avg_ts: number }[] = JSON.parse(await this.#output('llama-bench', options))
    return new Map(results.map((of) => [of.n_prompt, of.avg_ts]))
  }

  /** Its server, with `slots` streams of `slotTokens` tokens each. */
  serve(slots: number, slotTokens: number): LlamaServer {
    return new LlamaServer(join(this.folder, 'llama-server'), {
      '-m': this.model,
      '-t': this.threads,
      '-c': slots * slotTokens,
      '--parallel': slots,
    })
  }

  async #output(program: string, options: Record<string, string | number>): Promise<string> {
    const args = ['-m', this.model, '-t', this.threads, ...Object.entries(options).flat()].map(String)
    return (await run(join(this.folder, program), args, { maxBuffer: 1 << 24 })).stdout
  }
}

export class LlamaServer {
  readonly #port = 20000 + Math.floor(Math.random() * 20000)
  readonly url = `http://127.0.0.1:${this.#port}`
  readonly #process: ChildProcess

  constructor(program: string, options: Record<string, string | number>) {
    const args = Object.entries({ ...options, '--port': this.#port })
      .flat()
      .map(String)
    this.#process = spawn(program, args, { stdio: 'ignore' })
  }

  /** @throws Error when the server ends before */
  async ready(): Promise<void> {
    while (this.#process.exitCode === null) {
      const ok = await fetch(`${this.url}/health`).then(
        (response) => response.ok,
        () => false,
      )
      if (ok) return
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    throw new Error(`${this.#process.spawnfile} ended with exit code ${this.#process.exitCode}`)
  }

  stop(): void {
    this.#process.kill()
  }
}
