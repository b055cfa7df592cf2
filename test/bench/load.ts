// `npm run bench -- --load`: how long a checkpoint of the Pythia-1.4B shape takes to load and how much memory that needs at most,
// against reading its file once. The file is in the page cache; rounds are interleaved; figures are medians. Each round loads twice: into
// memory that was written and given back a moment before, against reading over and over into one small buffer; and into what the system
// has, against reading into as much memory. The host of a virtual machine may take memory back when the machine does not use it, and then
// gives it again a page at a time: no load can be faster than that.

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
  const readsIntoMemory: number[] = []
  const loads: Load[] = []
  const touched: Load[] = []
  for (let round = 0; round < rounds; round++) {
    reads.push(readOnce(file))
    readsIntoMemory.push(readIntoMemory(file))
    loads.push(loadOnce(folder, threads))
    touched.push(loadOnce(folder, threads, size))
  }
  const report = (what: string, read: number, loads: Load[]) => {
    const seconds = median(loads.map((load) => load.seconds))
    const mark = 1.3 * read + 0.3
    console.log(
      `  ${what}: read once ${read.toFixed(2)} s (${(size / read / 1e9).toFixed(1)} GB/s), load ${seconds.toFixed(2)} s, mark ${mark.toFixed(2)} s (1.3 x reading + 0.3 s)`,
    )
  }
  const peak = median(loads.map(({ peakBytes }) => peakBytes))
  const weights = loads[0]?.weightBytes ?? Number.NaN
  const megabyte = 1e6
  console.log(`  file of ${(size / 1e9).toFixed(2)} GB`)
  report('memory at hand', median(reads), touched)
  report('memory that the system must find', median(readsIntoMemory), loads)
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

/** The same into as much memory, in a process of its own. */
function readIntoMemory(file: string): number {
  const script = fileURLToPath(new URL('read_into_memory.mjs', import.meta.url))
  return Number(execFileSync(process.execPath, [script, file], { encoding: 'utf8' }))
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
