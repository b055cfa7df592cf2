// `npm run bench`: decode and prefill speed as fractions of what this machine reads and multiplies in the same run, time to ready,
// resident memory. Rounds are interleaved; every figure is a median. `npm run bench -- --rounds 3 --model <folder>` for less or other,
// `--load` for loading alone (load.ts), `--scheduler` for what the engine does beside computing (scheduler.ts), `--http` for the
// front end (http.ts).

import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { calibrate, startEngine } from '../../src/engine/addon.js'
import type { ModelSpec } from '../../src/engine/contract.js'
import type { Engine } from '../../src/engine/engine.js'
import { loadModel } from '../../src/models/load.js'
import { benchHttp } from './http.js'
import { benchLoad } from './load.js'
import { writeRandomCheckpoint } from './random_checkpoint.js'
import { benchScheduler } from './scheduler.js'
import { ServerProcess } from './server_process.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const bundled = join(root, 'models/tales')
const batches = [1, 4, 8, 16]
const prefillTokens = 512
const decodeTokens = 64
const kvCacheBytes = 512 * 1024 * 1024

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: 'string', default: '5' },
      model: { type: 'string', multiple: true },
      threads: { type: 'string' },
      load: { type: 'boolean', default: false },
      scheduler: { type: 'boolean', default: false },
      http: { type: 'boolean', default: false },
    },
  })
  const rounds = Number(values.rounds)
  const threads = Number(values.threads ?? availableParallelism())
  console.log(
    `${cpus()[0]?.model.trim()}, ${threads} threads, Node ${process.versions.node}, median of ${rounds} rounds`,
  )

  const temporary = mkdtempSync(join(tmpdir(), 'parley-bench-'))
  try {
    if (values.load) return await benchLoad(temporary, bundled, rounds, threads)
    if (values.scheduler) return await benchScheduler(temporary, bundled, rounds, threads)
    if (values.load) return benchLoad(temporary, bundled, rounds, threads)
    if (values.http) return await benchHttp(temporary, bundled, rounds)
    const models = values.model ?? [bundled]
    if (!values.model) {
      console.log('writing a random checkpoint of the Pythia-160M shape ...')
      writeRandomCheckpoint(temporary, { vocab: 50304, hidden: 768, layers: 12, heads: 12, positions: 2048 }, bundled)
      models.push(temporary)
    }
    for (const folder of models)
      await benchModel(folder, folder === temporary ? 'Pythia-160M shape, random' : folder, rounds, threads)
  } finally {
    rmSync(temporary, { recursive: true })
  }
}

async function benchModel(folder: string, name: string, rounds: number, threads: number): Promise<void> {
  const model = await loadModel(folder)
  const engine = await startEngine(model, {
    dtype: 'float16',
    num_threads: threads,
    max_model_len: model.spec.max_position,
    max_num_batched_tokens: prefillTokens,
    kv_cache_bytes: kvCacheBytes,
  })
  const bandwidths: number[] = []
  const rates: number[] = []
  const decode = new Map<number, number[]>(batches.map((batch) => [batch, []]))
  const prefill: number[] = []
  const output = createHash('sha256')
  try {
    await decodeRun(engine, 2) // warm: touches weights, pages and workspace once
    for (let round = 0; round < rounds; round++) {
      const machine = calibrate(engine.info.isa, threads, 1 << 30, 0.3)
      bandwidths.push(machine.readGBps)
      rates.push(machine.fmaGflops)
      for (const batch of batches) decode.get(batch)?.push(await decodeRun(engine, batch, output))
      prefill.push(await prefillRun(engine, round))
    }
  } finally {
    await engine.close()
  }

  const bandwidth = median(bandwidths)
  const rate = median(rates)
  const step = stepBytes(model.spec)
  const single = median(decode.get(1) ?? [])
  console.log(
    `\n${name}: ${(engine.info.num_parameters / 1e6).toFixed(1)} M parameters, ${engine.info.dtype}, ${engine.info.isa}`,
  )
  console.log(
    `  this machine, same run: reads ${bandwidth.toFixed(1)} GB/s, multiplies ${rate.toFixed(0)} GFLOP/s (float32 FMA)`,
  )
  for (const batch of batches) {
    const tokensPerSecond = median(decode.get(batch) ?? [])
    const steps = tokensPerSecond / batch
    const read = ((steps * step) / 1e9 / bandwidth) * 100
    const multiplied = ((tokensPerSecond * 2 * multiplications(model.spec)) / 1e9 / rate) * 100
    console.log(
      `  decode, batch ${String(batch).padStart(2)}: ${tokensPerSecond.toFixed(0).padStart(6)} tokens/s` +
        `  ${(tokensPerSecond / single).toFixed(2)} x batch 1  weights read at ${read.toFixed(0)}% of the bandwidth, ${multiplied.toFixed(0)}% of the FLOP/s`,
    )
  }
  const prefillSpeed = median(prefill)
  const prefillShare = ((prefillSpeed * prefillFlops(model.spec)) / prefillTokens / 1e9 / rate) * 100
  console.log(
    `  prefill, ${prefillTokens} tokens: ${prefillSpeed.toFixed(0)} tokens/s, ${prefillShare.toFixed(0)}% of the FLOP/s`,
  )
  console.log(`  output hash ${output.digest('hex').slice(0, 16)} (greedy tokens of all decode runs)`)
  if (process.env.NOSERVER === undefined) await benchServer(folder, rounds, engine.info.weight_bytes)
}

/** Tokens a second of `batch` greedy requests, from the moment when all have their first token to the last token. */
async function decodeRun(engine: Engine, batch: number, output?: ReturnType<typeof createHash>): Promise<number> {
  let waiting = batch
  let start = 0
  let counted = 0
  const tokens = Array.from({ length: batch }, () => [] as number[])
  const one = async (index: number) => {
    const prompt = Int32Array.from({ length: 16 }, (_, i) => 5 + ((index * 31 + i * 7) % 1000))
    let first = true
    for await (const event of engine.submit({
      prompt,
      sampling: { max_tokens: decodeTokens, temperature: 0, ignore_eos: true },
    })) {
      tokens[index]?.push(event.token)
      if (first) {
        first = false
        if (--waiting === 0) start = performance.now()
      } else if (waiting === 0) {
        counted++
      }
    }
  }
  await Promise.all(Array.from({ length: batch }, (_, i) => one(i)))
  const speed = (counted / (performance.now() - start)) * 1000
  output?.update(JSON.stringify(tokens))
  return speed
}

/** Prompt tokens a second of one request, until its first token. */
async function prefillRun(engine: Engine, round: number): Promise<number> {
  const prompt = Int32Array.from({ length: prefillTokens }, (_, i) => 5 + ((round * 131 + i * 7) % 1000))
  const start = performance.now()
  for await (const _ of engine.submit({ prompt, sampling: { max_tokens: 1, temperature: 0 } }));
  return (prefillTokens / (performance.now() - start)) * 1000
}

/** Numbers of a decoder's matrices that one token multiplies: blocks and unembedding. */
function multiplications(spec: ModelSpec): number {
  const query = spec.num_heads * spec.head_dim
  const kv = spec.num_kv_heads * spec.head_dim
  const block = spec.hidden_size * (2 * query + 2 * kv + 2 * spec.intermediate_size)
  return spec.num_layers * block + spec.vocab_size * spec.hidden_size
}

/** Bytes of float16 weights that a decode step reads. */
function stepBytes(spec: ModelSpec): number {
  return 2 * multiplications(spec)
}

/** Blocks for every token, causal attention (scores and values), the unembedding for the last token only. */
function prefillFlops(spec: ModelSpec): number {
  const head = spec.vocab_size * spec.hidden_size
  const blocks = 2 * prefillTokens * (multiplications(spec) - head)
  const attention = 2 * spec.num_layers * spec.num_heads * spec.head_dim * prefillTokens * (prefillTokens + 1)
  return blocks + attention + 2 * head
}

/** Starts the real server on `folder`: time to listen and to be ready, resident memory when ready and after some requests. */
async function benchServer(folder: string, rounds: number, weightBytes: number): Promise<void> {
  const listening: number[] = []
  const ready: number[] = []
  const resident: number[] = []
  for (let round = 0; round < rounds; round++) {
    const start = performance.now()
    const server = new ServerProcess(['--model', folder, '--kv-cache-memory', String(kvCacheBytes)])
    try {
      listening.push((await server.answers('/health/live')) - start)
      ready.push((await server.answers('/health/ready')) - start)
      const body = JSON.stringify({ prompt: 'Once upon a time', max_tokens: 100, ignore_eos: true })
      const request = () =>
        fetch(`${server.url}/v1/completions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
      for (const response of await Promise.all(Array.from({ length: 8 }, request))) await response.text()
      resident.push(server.residentBytes)
    } finally {
      await server.stop()
    }
  }
  const megabyte = 1024 * 1024
  const limit = 1.3 * weightBytes + kvCacheBytes + 150 * megabyte
  console.log(`  server: listens after ${median(listening).toFixed(0)} ms, ready after ${median(ready).toFixed(0)} ms`)
  console.log(
    `  resident after 8 requests: ${(median(resident) / megabyte).toFixed(0)} MiB; weights ${(weightBytes / megabyte).toFixed(0)} MiB,` +
      ` KV pages ${kvCacheBytes / megabyte} MiB (reserved, touched when used); mark ${(limit / megabyte).toFixed(0)} MiB`,
  )
}

function median(numbers: number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}
