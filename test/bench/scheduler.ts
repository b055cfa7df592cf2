// `npm run bench -- --scheduler`: what the engine does beside computing. Time of a step that is not the worker's, the time between tokens
// while a long prompt arrives, what the prefix cache spares and costs. Figures are ratios within one run; rounds are interleaved.

import { performance } from 'node:perf_hooks'
import { type StartOptions, startEngine } from '../../src/engine/addon.js'
import type { Engine } from '../../src/engine/engine.js'
import { loadModel } from '../../src/models/load.js'
import { writeRandomCheckpoint } from './random_checkpoint.js'

const longPrompt = 1500
const cachedPrompt = 1000

export async function benchScheduler(
  temporary: string,
  bundled: string,
  rounds: number,
  threads: number,
): Promise<void> {
  writeRandomCheckpoint(temporary, { vocab: 50304, hidden: 768, layers: 12, heads: 12, positions: 2048 }, bundled)
  const model = await loadModel(temporary)
  const options: StartOptions = {
    dtype: 'float16',
    num_threads: threads,
    max_model_len: 2048,
    kv_cache_bytes: 768 * 1024 * 1024,
  }
  const start = (more: Partial<StartOptions> = {}) => startEngine(model, { ...options, ...more })
  const engine = await start()
  console.log(`\nPythia-160M shape, random, ${engine.info.dtype}, ${engine.info.isa}`)
  const uncached = await start({ prefix_caching: false })
  const unpaced = await start({ pace_prompts: false })
  try {
    await bookkeeping(engine, rounds)
    await cacheRatios(engine, uncached, rounds)
    await waste(engine)
    for (const streams of [1, 8]) {
      for (const [name, one] of [
        ['paced', engine],
        ['not paced', unpaced],
      ] as const) {
        await gaps(one, streams, name, rounds)
      }
    }
  } finally {
    await Promise.all([engine, uncached, unpaced].map((one) => one.close()))
  }
}

let nextPrompt = 0
/** Tokens that no other prompt begins with. */
function freshPrompt(length: number): Int32Array {
  const salt = ++nextPrompt
  return Int32Array.from({ length }, (_, i) => 5 + ((salt * 7919 + i * (salt % 13 || 7)) % 40000))
}

async function timeToFirstToken(engine: Engine, prompt: Int32Array): Promise<number> {
  const start = performance.now()
  for await (const _ of engine.submit({ prompt, sampling: { max_tokens: 1, temperature: 0 } }));
  return performance.now() - start
}

async function bookkeeping(engine: Engine, rounds: number): Promise<void> {
  for (const batch of [1, 16]) {
    const each: number[] = []
    for (let round = 0; round < rounds; round++) {
      const before = engine.stats()
      const sampling = { max_tokens: 64, temperature: 0, ignore_eos: true }
      await Promise.all(
        Array.from({ length: batch }, async () => {
          for await (const _ of engine.submit({ prompt: freshPrompt(16), sampling }));
        }),
      )
      const after = engine.stats()
      each.push((1000 * (after.bookkeeping_ms - before.bookkeeping_ms)) / (after.num_steps - before.num_steps))
    }
    console.log(`  bookkeeping, ${batch} requests: ${median(each).toFixed(1)} µs a step`)
  }
}

async function cacheRatios(engine: Engine, uncached: Engine, rounds: number): Promise<void> {
  const cold: number[] = []
  const warm: number[] = []
  const withCache: number[] = []
  const without: number[] = []
  for (let round = 0; round < rounds; round++) {
    const prompt = freshPrompt(cachedPrompt)
    cold.push(await timeToFirstToken(engine, prompt))
    const other = prompt.slice()
    other.set(freshPrompt(cachedPrompt / 10), (cachedPrompt * 9) / 10)
    warm.push(await timeToFirstToken(engine, other))
    withCache.push(await timeToFirstToken(engine, freshPrompt(512)))
    without.push(await timeToFirstToken(uncached, freshPrompt(512)))
    withCache.push(await timeToFirstToken(engine, freshPrompt(512)))
  }
  console.log(
    `  ${cachedPrompt} tokens, 90% of them cached: ${median(warm).toFixed(1)} ms to the first token, ${(median(warm) / median(cold)).toFixed(3)} x cold (${median(cold).toFixed(1)} ms)`,
  )
  console.log(
    `  512 tokens without a hit: ${(median(withCache) / median(without)).toFixed(3)} x the time without the cache`,
  )
}

/** Part of the KV pages in use that holds no token, while requests decode whose lengths are those of ShareGPT's on average. */
async function waste(engine: Engine): Promise<void> {
  const lengths = Array.from({ length: 16 }, (_, i) => 2 + i * 27) // 204 on average
  const numTokens = lengths.slice()
  let reading = lengths.length
  const wastes: number[] = []
  await Promise.all(
    lengths.map(async (length, i) => {
      const sampling = { max_tokens: 179, temperature: 0, ignore_eos: true }
      let received = 0
      for await (const _ of engine.submit({ prompt: freshPrompt(length), sampling })) {
        if (received++ === 0) reading--
        numTokens[i] = length + received - 1 // the last one has no keys and values yet
        if (i !== 0 || reading > 0) continue
        const { num_pages_used, num_requests_running } = engine.stats()
        if (num_requests_running < lengths.length) continue
        wastes.push(1 - numTokens.reduce((sum, count) => sum + count, 0) / (num_pages_used * engine.info.page_size))
      }
    }),
  )
  console.log(`  KV pages in use without a token: ${(100 * median(wastes)).toFixed(1)}%`)
}

/** Gaps between the tokens of some streams while a long prompt arrives, until its first token, and before: some are the machine's. */
async function gaps(engine: Engine, streams: number, name: string, rounds: number): Promise<void> {
  const p50: number[] = []
  const p99: number[] = []
  const most: number[] = []
  const first: number[] = []
  const alone: number[] = []
  const ratios: number[] = []
  const before: number[] = []
  for (let round = 0; round < rounds; round++) {
    const controller = new AbortController()
    const gaps = { before: [] as number[], during: [] as number[] }
    let during = false
    let tokens = 0
    const stream = async () => {
      const sampling = { max_tokens: 1900, temperature: 0, ignore_eos: true }
      let last = 0
      for await (const _ of engine.submit({ prompt: freshPrompt(32), sampling }, controller.signal)) {
        const now = performance.now()
        tokens++
        if (last > 0) gaps[during ? 'during' : 'before'].push(now - last)
        last = now
      }
    }
    const running = Array.from({ length: streams }, stream)
    while (tokens < streams * 130) await new Promise((resolve) => setTimeout(resolve, 5))
    during = true
    first.push(await timeToFirstToken(engine, freshPrompt(longPrompt)))
    controller.abort()
    await Promise.all(running)
    p50.push(quantile(gaps.during, 0.5))
    p99.push(quantile(gaps.during, 0.99))
    ratios.push(quantile(gaps.during, 0.99) / quantile(gaps.during, 0.5))
    before.push(quantile(gaps.before, 0.99) / quantile(gaps.before, 0.5))
    most.push(quantile(gaps.during, 1))
    alone.push(await timeToFirstToken(engine, freshPrompt(longPrompt)))
  }
  console.log(
    `  ${streams} streams while ${longPrompt} tokens arrive, ${name}: gaps p50 ${median(p50).toFixed(1)} ms, p99 ${median(p99).toFixed(1)} ms (${median(ratios).toFixed(2)} x; before it came ${median(before).toFixed(2)} x), ` +
      `most ${median(most).toFixed(1)} ms; the prompt's first token after ${median(first).toFixed(0)} ms, alone ${median(alone).toFixed(0)} ms`,
  )
}

function quantile(values: number[], q: number): number {
  return values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(q * values.length))] ?? Number.NaN
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}
