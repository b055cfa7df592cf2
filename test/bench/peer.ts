// Parley's server beside llama.cpp's, over HTTP on the same threads, 128 tokens in and 128 out, 8 and 16 streams at once. Rounds are
// interleaved; every figure is a median.

import { performance } from 'node:perf_hooks'
import type { LlamaCpp } from './llama_cpp.js'
import { ServerProcess } from './server_process.js'

const clients = [8, 16]
const promptTokens = 128
const outputTokens = 128

interface Figures {
  /** Output tokens a second, from the first request to the last byte. */
  rates: number[]
  /** Milliseconds to each stream's first event. */
  firsts: number[]
}

export async function benchPeer(folder: string, peer: LlamaCpp, isa: string, rounds: number): Promise<void> {
  const parley = new ServerProcess([
    ...['--model', folder, '--isa', isa, '--threads', String(peer.threads), '--log-level', 'warn'],
    ...['--kv-cache-memory', String(512 * 1024 * 1024)],
  ])
  const llama = peer.serve(Math.max(...clients), promptTokens + outputTokens + 16)
  const servers = { parley: parley.url, llama: llama.url }
  const figures = new Map<string, Figures>()
  try {
    await Promise.all([parley.answers('/health/ready'), llama.ready()])
    for (let round = -1; round < rounds; round++) {
      for (const streams of clients) {
        for (const [server, url] of Object.entries(servers)) {
          const { rate, firsts } = await load(url, streams)
          if (round < 0) continue // warm
          const key = `${server} ${streams}`
          const of = figures.get(key) ?? { rates: [], firsts: [] }
          of.rates.push(rate)
          of.firsts.push(...firsts)
          figures.set(key, of)
        }
      }
    }
  } finally {
    llama.stop()
    await parley.stop()
  }
  console.log(`  over HTTP, ${promptTokens} + ${outputTokens} tokens, beside llama-server`)
  for (const streams of clients) {
    const [ours, theirs] = ['parley', 'llama'].map((server) => {
      const of = figures.get(`${server} ${streams}`) as Figures
      return { rate: median(of.rates), first: median(of.firsts) }
    }) as [{ rate: number; first: number }, { rate: number; first: number }]
    console.log(
      `  ${String(streams).padStart(2)} streams: ${ours.rate.toFixed(0)} and ${theirs.rate.toFixed(0)} output tokens/s,` +
        ` ${(ours.rate / theirs.rate).toFixed(2)} x (mark 1.6); first token after ${ours.first.toFixed(0)} and` +
        ` ${theirs.first.toFixed(0)} ms, ${(ours.first / theirs.first).toFixed(2)} x (mark 0.5)`,
    )
  }
}

let numPrompts = 0

async function load(url: string, streams: number): Promise<{ rate: number; firsts: number[] }> {
  const start = performance.now()
  const one = async () => {
    // No prompt begins as another did, so that no prefix cache spares a server work.
    const prompt = [5 + numPrompts++, ...Array.from({ length: promptTokens - 1 }, (_, i) => 5 + ((i * 7) % 1000))]
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt, max_tokens: outputTokens, temperature: 0, ignore_eos: true, stream: true }),
    })
    if (!response.ok || !response.body) throw new Error(`${url}: ${response.status} ${await response.text()}`)
    let first = Number.NaN
    let end = ''
    for await (const data of response.body) {
      if (Number.isNaN(first)) first = performance.now() - start
      end = (end + Buffer.from(data).subarray(-20).toString('latin1')).slice(-20)
    }
    if (!end.includes('[DONE]')) throw new Error(`${url}: the stream ended early`)
    return first
  }
  const firsts = await Promise.all(Array.from({ length: streams }, one))
  return { rate: (streams * outputTokens * 1000) / (performance.now() - start), firsts }
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN
}
