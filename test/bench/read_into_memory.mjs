// Reads a file into memory of its own size, which the system gives page by page, and prints the seconds: the least that a load costs
// which keeps what it reads. Its own process, so that no memory of an earlier round is at hand.
import { openSync, readSync, statSync } from 'node:fs'
import { performance } from 'node:perf_hooks'

const file = process.argv[2]
const size = statSync(file).size
const descriptor = openSync(file, 'r')
const start = performance.now()
const memory = new Uint8Array(new ArrayBuffer(size))
for (let done = 0; done < size; ) done += readSync(descriptor, memory, done, Math.min(4 << 20, size - done), null)
console.log((performance.now() - start) / 1000)
