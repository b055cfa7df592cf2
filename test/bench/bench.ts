// `npm run bench`: decode and prefill speed as fractions of what this machine reads and multiplies in the same run, time to ready,
// resident memory. Rounds are interleaved; every figure is a median. `npm run bench -- --rounds 3 --model <folder>` for less or other,
// `--shape pythia-1.4b --dtype bfloat16` for other random checkpoints, `--isa amx` for other kernels than the best,
// `--device cuda --deterministic` for the engine on GPUs, whose rates the native benchmark of kernels measures (gpu_rates.ts; `--kernels` names
// one that is built already, as `test/gpu/run.sh` does, or build/emulated/bench/kernels with PARLEY_CUDA_LIBRARY for the engine),
// `--tensor-parallel-size 2` for the engine with ranks, `--engine` without the server, `--load` for loading alone (load.ts), `--scheduler` for what the engine does beside computing (scheduler.ts), `--http` for
// the front end (http.ts; `--part streams` for one part of it). `--peer <folder> --peer-model <file.gguf>`: all that beside llama.cpp's own programs (llama_cpp.ts), which are in
// that folder, in the same rounds; the file should have the shape and dtype that --shape and --dtype name, the weights need not be the
// same.

import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { calibrate, startEngine } from '../../src/engine/addon.js'
import type { DType, Isa, ModelSpec } from '../../src/engine/contract.js'
import type { Engine } from '../../src/engine/engine.js'
import { loadModel } from '../../src/models/load.js'
import { measureGpu } from './gpu_rates.js'
import { benchHttp } from './http.js'
import { LlamaCpp } from './llama_cpp.js'
import { benchLoad } from './load.js'
import { benchPeer } from './peer.js'
import { type Shape, writeRandomCheckpoint } from './random_checkpoint.js'
import { benchScheduler } from './scheduler.js'
import { ServerProcess } from './server_process.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const bundled = join(root, 'models/tales')
const usualBatches = { cpu: '1,4,8,16,32', cuda: '1,8,32,64,128' }
const prefillLengths = [512, 2000]
const decodeTokens = 64
/** Of tokens that all requests of a decode run have in the end, pages filled up. */
const pagedTokens = (batch: number, promptTokens: number) => batch * (promptTokens + decodeTokens + 16)
/** Keys before the first token of the decode runs at depth, and their batches. */
const depth = 1024
const deepBatches = [1, 8]
const kvCacheBytes = 512 * 1024 * 1024
/** Of each request to the server, whose prompt fills a page at most. */
const serverTokens = 112

export async function main(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      rounds: { type: 'string', default: '5' },
      model: { type: 'string', multiple: true },
      threads: { type: 'string' },
      'tensor-parallel-size': { type: 'string', default: '1' },
      shape: { type: 'string', multiple: true, default: ['pythia-160m'] },
      dtype: { type: 'string', default: 'float16' },
      isa: { type: 'string', default: 'auto' },
      device: { type: 'string', default: 'cpu' },
      deterministic: { type: 'boolean', default: false },
      kernels: { type: 'string' },
      batches: { type: 'string' },
      engine: { type: 'boolean', default: false },
      load: { type: 'boolean', default: false },
      scheduler: { type: 'boolean', default: false },
      http: { type: 'boolean', default: false },
      part: { type: 'string' },
      peer: { type: 'string' },
      'peer-model': { type: 'string' },
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
    if (values.http) return await benchHttp(temporary, bundled, shapesOf(values.shape), rounds, values.part)
    const ranks = Number(values['tensor-parallel-size'])
    const { device, deterministic, kernels = null } = values
    if (device !== 'cpu' && device !== 'cuda') throw new Error(`--device ${device}: expected cpu or cuda`)
    const options: Options = {
      rounds,
      batches: (values.batches ?? usualBatches[device]).split(',').map(Number),
      threads,
      ranks,
      dtype: values.dtype,
      isa: values.isa as Isa,
      device,
      deterministic: device === 'cpu' || deterministic,
      kernels,
      server: !values.engine,
      peer: null,
    }
    if (values.peer) {
      if (!values['peer-model']) throw new Error('--peer: expected --peer-model, a GGUF file, beside it')
      options.peer = new LlamaCpp(values.peer, values['peer-model'], threads)
    }
    if (values.model) {
      for (const folder of values.model) await benchModel(folder, folder, options)
      return
    }
    for (const [name, shape] of Object.entries(shapesOf(values.shape))) {
      if (values.dtype !== 'float16' && values.dtype !== 'bfloat16')
        throw new Error(`--dtype ${values.dtype}: expected float16 or bfloat16`)
      writeRandomCheckpoint(temporary, shape, bundled, values.dtype)
      await benchModel(temporary, `${name}, random weights`, options)
    }
  } finally {
    rmSync(temporary, { recursive: true })
  }
}

const pythia = { vocab: 50304, positions: 2048 }
const shapes: Record<string, Shape> = {
  'pythia-160m': { ...pythia, hidden: 768, layers: 12, heads: 12 },
  'pythia-410m': { ...pythia, hidden: 1024, layers: 24, heads: 16 },
  'pythia-1.4b': { ...pythia, hidden: 2048, layers: 24, heads: 16 },
  'llama-1.1b': {
    vocab: 32000,
    hidden: 2048,
    layers: 22,
    heads: 32,
    positions: 2048,
    llama: { kvHeads: 4, intermediate: 5632 },
  },
}

/** @throws Error naming a shape that is none */
function shapesOf(names: string[]): Record<string, Shape> {
  return Object.fromEntries(
    names.map((name) => {
      const shape = shapes[name]
      if (!shape) throw new Error(`--shape ${name}: expected one of ${Object.keys(shapes).join(', ')}`)
      return [name, shape]
    }),
  )
}

interface Options {
  rounds: number
  batches: number[]
  threads: number
  ranks: number
  dtype: string
  isa: Isa
  device: 'cpu' | 'cuda'
  deterministic: boolean
  kernels: string | null
  server: boolean
  peer: LlamaCpp | null
}

async function benchModel(folder: string, name: string, options: Options): Promise<void> {
  const { rounds, threads, ranks, device, deterministic } = options
  const model = await loadModel(folder)
  const { batches } = options
  const gpu = device === 'cuda' ? measureGpu(options.kernels) : null
  const engine = await startEngine(model, {
    dtype: options.dtype as DType,
    isa: options.isa,
    device,
    deterministic,
    num_threads: threads,
    tensor_parallel_size: ranks,
    max_model_len: model.spec.max_position,
    max_num_seqs: Math.max(64, ...batches),
    max_num_batched_tokens: 512,
    kv_cache_bytes: Math.max(kvCacheBytes, pagedTokens(Math.max(...batches), 16) * kvBytes(model.spec)),
  })
  const bandwidths: number[] = []
  const rates: number[] = []
  const decode = new Map<number, number[]>(batches.map((batch) => [batch, []]))
  const deep = new Map<number, number[]>(deepBatches.map((batch) => [batch, []]))
  const lengths = prefillLengths.filter((length) => length < model.spec.max_position)
  const prefill = new Map<number, number[]>(lengths.map((length) => [length, []]))
  const peer = {
    decode: new Map<number, number[]>(),
    deep: new Map<number, number[]>(),
    prefill: new Map<number, number[]>(),
  }
  const output = createHash('sha256')
  try {
    await decodeRun(engine, 2, 16) // warm: touches weights, pages and workspace once
    for (let round = 0; round < rounds; round++) {
      if (gpu === null) {
        const machine = calibrate(engine.info.isa, threads, 1 << 30, 0.3)
        bandwidths.push(machine.readGBps)
        rates.push(machine.fmaGflops)
      } else {
        bandwidths.push(gpu.readGBps)
        rates.push(gpu.gflops)
      }
      for (const batch of batches) decode.get(batch)?.push(await decodeRun(engine, batch, 16, output))
      if (options.peer) addSpeeds(peer.decode, await options.peer.decode(batches, 16, decodeTokens))
      for (const [length, speeds] of prefill) speeds.push(await prefillRun(engine, length, round))
      if (options.peer) addSpeeds(peer.prefill, await options.peer.prefill(lengths))
      if (depth + decodeTokens > model.spec.max_position) continue
      for (const [batch, speeds] of deep) speeds.push(await decodeRun(engine, batch, depth))
      if (options.peer) addSpeeds(peer.deep, await options.peer.decode(deepBatches, depth, decodeTokens))
    }
  } finally {
    await engine.close()
  }

  const bandwidth = median(bandwidths)
  const rate = median(rates)
  const step = stepBytes(model.spec)
  const single = median(decode.get(1) ?? [])
  console.log(
    `\n${name}: ${(engine.info.num_parameters / 1e6).toFixed(1)} M parameters, ${engine.info.dtype}, ${gpu === null ? engine.info.isa : `${gpu.gpu}${deterministic ? ', deterministic' : ''}`}`,
  )
  const of = gpu === null ? 'this machine, same run' : 'one GPU, before the run'
  const unit = gpu === null ? 'float32 FMA' : 'float16 matrices of 8192 x 8192'
  console.log(`  ${of}: reads ${bandwidth.toFixed(1)} GB/s, multiplies ${rate.toFixed(0)} GFLOP/s (${unit})`)
  for (const batch of batches) {
    const tokensPerSecond = median(decode.get(batch) ?? [])
    const steps = tokensPerSecond / batch
    const read = ((steps * step) / 1e9 / bandwidth) * 100
    const multiplied = ((tokensPerSecond * 2 * multiplications(model.spec)) / 1e9 / rate) * 100
    console.log(
      `  decode, batch ${String(batch).padStart(2)}: ${tokensPerSecond.toFixed(0).padStart(6)} tokens/s` +
        `  ${(tokensPerSecond / single).toFixed(2)} x batch 1  weights read at ${read.toFixed(0)}% of the bandwidth, ${multiplied.toFixed(0)}% of the FLOP/s` +
        besidePeer(tokensPerSecond, peer.decode.get(batch)),
    )
  }
  for (const [batch, speeds] of deep) {
    if (speeds.length === 0) continue
    const tokensPerSecond = median(speeds)
    const read = ((tokensPerSecond / batch) * (step + batch * depth * kvBytes(model.spec))) / 1e9 / bandwidth
    console.log(
      `  decode, batch ${String(batch).padStart(2)}, ${depth} tokens deep: ${tokensPerSecond.toFixed(0)} tokens/s` +
        `  weights, keys and values read at ${(read * 100).toFixed(0)}% of the bandwidth` +
        besidePeer(tokensPerSecond, peer.deep.get(batch)),
    )
  }
  for (const [length, speeds] of prefill) {
    const speed = median(speeds)
    const share = ((speed * prefillFlops(model.spec, length)) / length / 1e9 / rate) * 100
    console.log(
      `  prefill, ${length} tokens: ${speed.toFixed(0)} tokens/s, ${share.toFixed(0)}% of the FLOP/s` +
        besidePeer(speed, peer.prefill.get(length)),
    )
  }
  console.log(`  output hash ${output.digest('hex').slice(0, 16)} (greedy tokens of all decode runs)`)
  if (options.server) await benchServer(folder, rounds, engine.info.weight_bytes, kvBytes(model.spec), device)
  if (options.server && options.peer) await benchPeer(folder, options.peer, engine.info.isa, rounds)
}

function addSpeeds(to: Map<number, number[]>, speeds: Map<number, number>): void {
  for (const [key, speed] of speeds) to.set(key, [...(to.get(key) ?? []), speed])
}

function besidePeer(speed: number, peer: number[] | undefined): string {
  if (peer === undefined) return ''
  return `; llama.cpp ${median(peer).toFixed(0)} tokens/s, ${(speed / median(peer)).toFixed(2)} x`
}

/** Tokens a second of `batch` greedy requests, from the moment when all have their first token to the last token. */
async function decodeRun(
  engine: Engine,
  batch: number,
  promptTokens: number,
  output?: ReturnType<typeof createHash>,
): Promise<number> {
  let waiting = batch
  let start = 0
  let counted = 0
  const tokens = Array.from({ length: batch }, () => [] as number[])
  const one = async (index: number) => {
    const prompt = Int32Array.from({ length: promptTokens }, (_, i) => 5 + ((index * 31 + i * 7) % 1000))
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
async function prefillRun(engine: Engine, length: number, round: number): Promise<number> {
  const prompt = Int32Array.from({ length }, (_, i) => 5 + ((round * 131 + length * 17 + i * 7) % 1000))
  const start = performance.now()
  for await (const _ of engine.submit({ prompt, sampling: { max_tokens: 1, temperature: 0 } }));
  return (length / (performance.now() - start)) * 1000
}

/** Numbers of a decoder's matrices that one token multiplies: blocks and unembedding. */
function multiplications(spec: ModelSpec): number {
  const query = spec.num_heads * spec.head_dim
  const kv = spec.num_kv_heads * spec.head_dim
  const block = spec.hidden_size * (2 * query + 2 * kv + (spec.gated_mlp ? 3 : 2) * spec.intermediate_size)
  return spec.num_layers * block + spec.vocab_size * spec.hidden_size
}

/** Bytes of float16 weights that a decode step reads. */
function stepBytes(spec: ModelSpec): number {
  return 2 * multiplications(spec)
}

/** Bytes of a token's keys and values in 16 bits. */
function kvBytes(spec: ModelSpec): number {
  return 2 * 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim
}

/** Blocks for every token, causal attention (scores and values), the unembedding for the last token only. */
function prefillFlops(spec: ModelSpec, length: number): number {
  const head = spec.vocab_size * spec.hidden_size
  const blocks = 2 * length * (multiplications(spec) - head)
  const attention = 2 * spec.num_layers * spec.num_heads * spec.head_dim * length * (length + 1)
  return blocks + attention + 2 * head
}

/** Starts the real server on `folder`: time to listen, to be ready and to the first token; resident memory after some requests. */
async function benchServer(
  folder: string,
  rounds: number,
  weightBytes: number,
  kvTokenBytes: number,
  device: 'cpu' | 'cuda',
): Promise<void> {
  const listening: number[] = []
  const ready: number[] = []
  const first: number[] = []
  const resident: number[] = []
  for (let round = 0; round < rounds; round++) {
    const start = performance.now()
    const server = new ServerProcess(['--device', device, '--model', folder, '--kv-cache-memory', String(kvCacheBytes)])
    try {
      listening.push((await server.answers('/health/live')) - start)
      ready.push((await server.answers('/health/ready')) - start)
      const complete = async (tokens: number) => {
        const body = JSON.stringify({ prompt: 'Once upon a time', max_tokens: tokens, ignore_eos: true })
        const headers = { 'content-type': 'application/json' }
        const response = await fetch(`${server.url}/v1/completions`, { method: 'POST', headers, body })
        if (!response.ok) throw new Error(`the server answered ${response.status}: ${await response.text()}`)
        await response.text()
      }
      await complete(1)
      first.push(performance.now() - start)
      await Promise.all(Array.from({ length: 8 }, () => complete(serverTokens - 16)))
      resident.push(server.residentBytes)
    } finally {
      await server.stop()
    }
  }
  const megabyte = 1024 * 1024
  console.log(
    `  server: listens after ${median(listening).toFixed(0)} ms, ready after ${median(ready).toFixed(0)} ms,` +
      ` first token after ${median(first).toFixed(0)} ms`,
  )
  if (device === 'cuda') {
    console.log(`  resident after 8 requests: ${(median(resident) / megabyte).toFixed(0)} MiB of the machine's memory`)
    return
  }
  // Of the pages that are reserved only those count that the requests' tokens fill.
  const kvCache = 8 * serverTokens * kvTokenBytes
  const limit = 1.1 * weightBytes + kvCache + 150 * megabyte
  console.log(
    `  resident after 8 requests: ${(median(resident) / megabyte).toFixed(0)} MiB; weights ${(weightBytes / megabyte).toFixed(0)} MiB,` +
      ` KV pages used ${(kvCache / megabyte).toFixed(0)} MiB; mark ${(limit / megabyte).toFixed(0)} MiB`,
  )
}

function median(numbers: number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN
}
