// Loads a model folder, as a server does, and prints seconds and the process's largest resident memory. Its own process, because
// the system keeps that maximum per process. With a third argument so many bytes of memory are written and given back first.
import { readFileSync } from 'node:fs'
import { performance } from 'node:perf_hooks'
import { calibrate, startEngine } from '../../dist/engine/addon.js'
import { loadModel } from '../../dist/models/load.js'

const [folder, threads, touched] = process.argv.slice(2)
if (touched) calibrate('auto', Number(threads), Number(touched), 0)
const start = performance.now()
const model = await loadModel(folder)
const options = { dtype: 'float16', num_threads: Number(threads), max_model_len: 2048, kv_cache_bytes: 1 << 29 }
const engine = await startEngine(model, options)
const seconds = (performance.now() - start) / 1000
const peakBytes = Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024
console.log(JSON.stringify({ seconds, peakBytes, weightBytes: engine.info.weight_bytes }))
await engine.close()
