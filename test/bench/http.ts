// `npm run bench -- --http`: what the front end costs. 128 streams at once against the engine alone, CPU for each streamed token, beside what
// writing alone costs, idle WebSockets, event streams that wait, and the memory of one very long stream. The engine of the bundled model, which makes many thousand
// tokens a second, has one core less than there are, for the front end and the client; that of larger shapes has all, as a server's has.

import { fork, spawn } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { startEngine } from '../../src/engine/addon.js'
import type { Engine } from '../../src/engine/engine.js'
import { loadModel } from '../../src/models/load.js'
import { Pace } from './pace.mjs'
import { type Shape, writeRandomCheckpoint } from './random_checkpoint.js'
import { ServerProcess } from './server_process.js'

const numStreams = 128
/** Of each stream: as many as make a run of some seconds. */
const numTokens = { bundled: 512, shape: 128 }
const numIdle = 10_000
const idleMs = 35_000
const numWaiting = 10_000
const waitingMs = 15_000
const longTokens = 100_000
const kvCacheBytes = 1024 * 1024 * 1024

/** Tokens of each stream of the short runs, which tell a request's cost from its tokens'. */
const numFew = 16
/** Runs of one token a stream before all is measured: V8 compiles what has run some thousand times. */
const numWarm = 24
/** Bytes of an event that tells of one token, its chunk's frame included. */
const eventBytes = 190

/** @param part one of them, or all */
export async function benchHttp(
  folder: string,
  bundled: string,
  shapes: Readonly<Record<string, Shape>>,
  rounds: number,
  part = 'all',
): Promise<void> {
  const parts: Record<string, () => Promise<void>> = {
    streams: async () => {
      const cores = availableParallelism()
      await benchStreams('tales', bundled, Math.max(1, cores - 1), numTokens.bundled, rounds)
      for (const [name, shape] of Object.entries(shapes)) {
        writeRandomCheckpoint(folder, shape, bundled)
        await benchStreams(`${name}, random weights`, folder, cores, numTokens.shape, rounds)
      }
    },
    idle: () => benchIdle(bundled),
    waiting: () => benchWaiting(folder, bundled),
    long: () => benchLong(folder, bundled),
  }
  if (part !== 'all' && !parts[part])
    throw new Error(`--part ${part}: expected one of ${Object.keys(parts).join(', ')}`)
  for (const [name, run] of Object.entries(parts)) if (part === 'all' || part === name) await run()
}

/** Rounds are interleaved: the engine alone, SSE, one WebSocket. @param tokens of each stream */
async function benchStreams(
  name: string,
  model: string,
  threads: number,
  tokens: number,
  rounds: number,
): Promise<void> {
  const cores = availableParallelism()
  const engine = await startEngine(await loadModel(model), {
    ...{ num_threads: threads, max_model_len: 1024, max_num_seqs: numStreams, kv_cache_bytes: kvCacheBytes },
  })
  const server = new ServerProcess([
    ...['--model', model, '--max-num-seqs', String(numStreams), '--threads', String(threads)],
    ...['--kv-cache-memory', String(kvCacheBytes), '--log-level', 'warn'],
  ])
  const alone: number[] = []
  const besideBusy: number[] = []
  const rates = { sse: [] as number[], ws: [] as number[] }
  const costs = { sse: [] as number[], ws: [] as number[] }
  const shortCosts = { sse: [] as number[], ws: [] as number[] }
  const firstCosts = { sse: Number.NaN, ws: Number.NaN }
  const bare: number[] = []
  const slept = { sse: [] as number[], ws: [] as number[] }
  const waited = { sse: [] as number[], ws: [] as number[] }
  try {
    await server.answers('/health/ready')
    const client = new Companion('http_client.mjs', String(server.port))
    const writer = new Companion('bare_writer.mjs')
    const { port } = await writer.ask<{ port: number }>({})
    const reader = new Companion('http_client.mjs', String(port))
    await reader.ask({ waiting: numStreams, tokens: 1 })
    await engineRun(engine, numFew)
    /** Microseconds of CPU that the front end takes for each of as many requests at once. */
    const costOf = async (over: 'sse' | 'ws', tokens: number) => {
      const before = server.frontEndSeconds
      await client.ask({ streams: numStreams, tokens, over })
      return ((server.frontEndSeconds - before) * 1e6) / numStreams
    }
    for (const over of ['sse', 'ws'] as const) {
      firstCosts[over] = await costOf(over, 1)
      for (let run = 0; run < numWarm; run++) await costOf(over, 1)
    }
    for (let round = 0; round < rounds; round++) {
      alone.push(await engineRun(engine, tokens))
      if (threads < cores) besideBusy.push(await besideBusyCore(() => engineRun(engine, tokens)))
      const every = (numStreams * 1000) / median(alone)
      const steps = Math.ceil(tokens / 3) // the engine has begun before the first and ends behind the last
      const running = engineRun(engine, tokens)
      bare.push((await writer.ask<{ us: number }>({ bytes: eventBytes, every, steps })).us)
      await running
      for (const over of ['sse', 'ws'] as const) {
        await costOf(over, 1) // connects where the server has closed what waited too long
        shortCosts[over].push(await costOf(over, numFew))
        const before = server.frontEndSeconds
        const engineBefore = server.engineSeconds
        const asked = { streams: numStreams, tokens, over }
        const { rate, seconds } = await client.ask<{ rate: number; seconds: number }>(asked)
        rates[over].push(rate)
        costs[over].push(((server.frontEndSeconds - before) * 1e6) / (numStreams * tokens))
        const ran = server.engineSeconds.ran - engineBefore.ran
        const queued = server.engineSeconds.queued - engineBefore.queued
        slept[over].push(1 - (ran + queued) / seconds)
        waited[over].push(queued / seconds)
      }
    }
    for (const companion of [client, writer, reader]) companion.end()
  } finally {
    await server.stop()
    await engine.close()
  }
  const best = median(alone)
  console.log(`\n${name}: ${numStreams} streams at once, ${tokens} tokens each, engine on ${threads} of ${cores} cores`)
  console.log(`  engine alone: ${best.toFixed(0)} tokens/s`)
  if (besideBusy.length > 0) {
    const rate = median(besideBusy)
    console.log(
      `  engine beside a program that only counts: ${rate.toFixed(0)} tokens/s, ${((rate / best) * 100).toFixed(1)}% of it`,
    )
  }
  console.log(`  a process that only writes as much to as many sockets: ${median(bare).toFixed(1)} us of CPU a write`)
  for (const [over, way] of [
    ['sse', `${numStreams} event streams`],
    ['ws', 'one WebSocket'],
  ] as const) {
    const rate = median(rates[over])
    const cost = median(costs[over])
    console.log(
      `  ${way}: ${rate.toFixed(0)} tokens/s, ${((rate / best) * 100).toFixed(1)}% of it (mark 95%);` +
        ` ${cost.toFixed(1)} us of CPU a token in the front end (mark 20)`,
    )
    const each = (cost * tokens - median(shortCosts[over])) / (tokens - numFew)
    console.log(
      `    a request ${(median(shortCosts[over]) - numFew * each).toFixed(0)} us, and each of its tokens ${each.toFixed(1)} us;` +
        ` each of the first ${numStreams}, which connect and whose JavaScript is not compiled yet, ${firstCosts[over].toFixed(0)} us`,
    )
    console.log(
      `    at the engine's rate that would be ${((cost * best) / 1e4 / cores).toFixed(1)}% of all cores; the engine's thread slept ${(median(slept[over]) * 100).toFixed(1)}% of the time, and stood in line for a core` +
        ` ${(median(waited[over]) * 100).toFixed(1)}%`,
    )
  }
}

/** Tokens a second of as many requests without a front end. */
async function engineRun(engine: Engine, tokens: number): Promise<number> {
  const pace = new Pace()
  const one = async () => {
    const sampling = { max_tokens: tokens, temperature: 0, ignore_eos: true }
    for await (const _ of engine.submit({ prompt: Int32Array.of(5, 6, 7, 8), sampling })) pace.add(1)
  }
  await Promise.all(Array.from({ length: numStreams }, one))
  return pace.rate(numStreams * tokens)
}

/** What `measure` gives while a program counts on another core, which takes nothing but that core. */
async function besideBusyCore(measure: () => Promise<number>): Promise<number> {
  const counting = spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' })
  try {
    return await measure()
  } finally {
    counting.kill()
  }
}

async function benchIdle(model: string): Promise<void> {
  const server = new ServerProcess(['--model', model, '--log-level', 'warn'], true)
  const control = new Companion('idle_loop.mjs')
  try {
    await server.answers('/health/ready')
    const client = new Companion('http_client.mjs', String(server.port))
    await client.ask({ idle: 100 }) // warm
    await pause(1000)
    const before = server.residentBytes
    await client.ask({ idle: numIdle })
    const bytes = (server.residentBytes - before) / (numIdle - 100)
    const connecting = await server.longestStallMs()
    await control.ask({})
    await pause(idleMs)
    const stall = await server.longestStallMs()
    const without = await control.ask<number>({})
    await metric(server, 'parley_websockets_open')
    await pause(100)
    const scrape = await server.longestStallMs()
    const { open } = await client.ask<{ open: number }>({ idle: 0 })
    client.end()
    console.log(`\n${open} idle WebSockets`)
    console.log(`  ${(bytes / 1024).toFixed(1)} KiB each (mark 8)`)
    console.log(`  longest stall of the event loop in ${idleMs / 1000} s: ${stall.toFixed(1)} ms (mark 10)`)
    console.log(`    of a process beside it that does nothing: ${without.toFixed(1)} ms`)
    console.log(`  when somebody looked at /metrics for the first time: ${scrape.toFixed(1)} ms`)
    console.log(`  longest while they connected: ${connecting.toFixed(1)} ms`)
  } finally {
    control.end()
    await server.stop()
  }
}

/** The first value of a series of /metrics. */
async function metric({ url }: ServerProcess, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Number(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)`, 'm').exec(text)?.[1])
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** A model that is next to nothing, with room for a very long answer. */
function writeLongModel(folder: string, tokenizer: string): void {
  writeRandomCheckpoint(folder, { vocab: 4096, hidden: 32, layers: 1, heads: 2, positions: 131072 }, tokenizer)
}

/** Event streams whose requests wait for their turn, all but the one that has the only seat. */
async function benchWaiting(folder: string, tokenizer: string): Promise<void> {
  writeLongModel(folder, tokenizer)
  const limits = ['--max-num-seqs', '1', '--max-queue', String(2 * numWaiting)]
  const server = new ServerProcess(['--model', folder, ...limits, '--log-level', 'warn'], true)
  try {
    await server.answers('/health/ready')
    const client = new Companion('http_client.mjs', String(server.port))
    const wait = async (count: number) => {
      await client.ask({ waiting: count, tokens: longTokens })
      while ((await metric(server, 'vllm:num_requests_waiting')) < count - 1) await pause(100)
    }
    await wait(100) // warm
    const before = server.residentBytes
    await wait(numWaiting)
    const bytes = (server.residentBytes - before) / (numWaiting - 100)
    await server.longestStallMs() // of the connecting
    await pause(waitingMs)
    const stall = await server.longestStallMs()
    const left = await metric(server, 'vllm:num_requests_waiting')
    client.end()
    console.log(`\n${left} event streams that wait, beside one that runs`)
    console.log(`  ${(bytes / 1024).toFixed(1)} KiB each`)
    console.log(`  longest stall of the event loop in ${waitingMs / 1000} s: ${stall.toFixed(1)} ms`)
  } finally {
    await server.stop()
  }
}

async function benchLong(folder: string, tokenizer: string): Promise<void> {
  writeLongModel(folder, tokenizer)
  console.log(`\none stream of ${longTokens} tokens`)
  for (const over of ['sse', 'ws'] as const) {
    const server = new ServerProcess(['--model', folder, '--max-num-seqs', '1', '--log-level', 'warn'])
    try {
      await server.answers('/health/ready')
      const client = new Companion('http_client.mjs', String(server.port))
      await client.ask({ streams: 1, tokens: 2000, over }) // warm
      const before = server.residentBytes
      let most = 0
      const watch = setInterval(() => {
        most = Math.max(most, server.residentBytes)
      }, 100)
      const { seconds } = await client.ask<{ seconds: number }>({ streams: 1, tokens: longTokens, over })
      clearInterval(watch)
      client.end()
      const grown = (most - before) / 2 ** 20
      console.log(
        `  ${over}: ${seconds.toFixed(0)} s, memory grew by ${grown.toFixed(1)} MiB, KV pages of 12 among them`,
      )
    } finally {
      await server.stop()
    }
  }
}

/** A process of this folder that answers each message with one. */
class Companion {
  readonly #process

  constructor(file: string, ...args: string[]) {
    this.#process = fork(fileURLToPath(new URL(file, import.meta.url)), args)
  }

  ask<T>(question: object): Promise<T> {
    return new Promise((resolve, reject) => {
      const ended = () => reject(new Error('the process that was asked has ended'))
      this.#process.once('exit', ended)
      this.#process.once('message', (answer) => {
        this.#process.off('exit', ended)
        resolve(answer as T)
      })
      this.#process.send(question)
    })
  }

  end(): void {
    this.#process.kill()
  }
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN
}
