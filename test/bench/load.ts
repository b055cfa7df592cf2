// `npm run bench -- --load`: how long a checkpoint of the Pythia-1.4B shape takes to load and how much memory that needs at most,
// against reading its file once. The file is in the page cache; rounds are interleaved; figures are medians. Each round loads twice: into
// memory that was written and given back a moment before, and into what the system has. The host of a virtual machine may take memory back
// when the machine does not use it, and then gives it again a page at a time, in seconds: no load can be faster than that.

import { execFileSync } from 'node:child_process'
import { closeSync, openSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { writeRandomCheckpoint } from './random_checkpoint.js'

/** What test/bench/load_once.mjs prints. */
interface Load {
  seconds: number
  peakBytes: number
  weightBytes: number
}

export function benchLoad(folder: string, tokenizerFolder: string, rounds: number, threads: number): void {
  console.log('writing a random checkpoint of the Pythia-1.4B shape ...')
  writeRandomCheckpoint(folder, { vocab: 50304, hidden: 2048, layers: 24, heads: 16, positions: 2048 }, tokenizerFolder)
  const file = join(folder, 'model.safetensors')
  const { size } = statSync(file)
  readOnce(file)
  const reads: number[] = []
  const loads: Load[] = []
  const touched: Load[] = []
  for (let round = 0; round < rounds; round++) {
    reads.push(readOnce(file))
    loads.push(loadOnce(folder, threads))
    touched.push(loadOnce(folder, threads, size))
  }
  const read = median(reads)
  const seconds = (of: Load[]) => median(of.map((load) => load.seconds)).toFixed(2)
  const peak = median(loads.map(({ peakBytes }) => peakBytes))
  const weights = loads[0]?.weightBytes ?? Number.NaN
  const megabyte = 1e6
  console.log(
    `  file of ${(size / 1e9).toFixed(2)} GB read once: ${read.toFixed(2)} s (${(size / read / 1e9).toFixed(1)} GB/s)`,
  )
  console.log(
    `  load: ${seconds(touched)} s into memory given back a moment before, ${seconds(loads)} s into what the system has;` +
      ` mark ${(1.3 * read + 0.3).toFixed(2)} s (1.3 x reading + 0.3 s)`,
  )
  console.log(
    `  peak memory: ${(peak / megabyte).toFixed(0)} MB, mark ${((1.15 * weights) / megabyte + 200).toFixed(0)} MB (1.15 x ${(weights / megabyte).toFixed(0)} MB of weights + 200 MB)`,
  )
}

/** Seconds to read a file from start to end, one thread, 4 MiB at a time. */
function readOnce(file: string): number {
  const descriptor = openSync(file, 'r')
  const buffer = Buffer.alloc(4 << 20)
  const start = performance.now()
  while (readSync(descriptor, buffer) > 0);
  const seconds = (performance.now() - start) / 1000
  closeSync(descriptor)
  return seconds
}

/** Loads the folder in a process of its own, as a server does; that process writes and gives back `touchedBytes` first. */
function loadOnce(folder: string, threads: number, touchedBytes?: number): Load {
  const script = fileURLToPath(new URL('load_once.mjs', import.meta.url))
  const args = [script, folder, String(threads), ...(touchedBytes ? [String(touchedBytes)] : [])]
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' }))
}

function median(numbers: number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN
}
