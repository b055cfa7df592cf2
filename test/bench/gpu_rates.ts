// What a GPU reads and multiplies at best, as test/gpu/bench/kernels measures it.

import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../..', import.meta.url))

export interface GpuRates {
  /** its name, compute capability and multiprocessors */
  gpu: string
  /** 4 GiB, in 10^9 bytes a second */
  readGBps: number
  /** float16 matrices of 8192 x 8192, by the faster of Parley's kernel and cuBLASLt, in 10^9 operations a second */
  gflops: number
}

/**
 * @param program one that is built already, for this GPU or for the emulator; null: it is built for the GPU here
 * @throws Error where nvcc or a GPU is missing
 */
export function measureGpu(program: string | null): GpuRates {
  if (program === null) {
    const jobs = `-j${availableParallelism()}`
    execFileSync('make', ['-s', jobs, '-C', join(root, 'test/gpu/bench'), '../../../build/gpu-bench/kernels'])
  }
  const output = execFileSync(program ?? join(root, 'build/gpu-bench/kernels'), ['--only', 'rates'], {
    encoding: 'utf8',
  })
  const numbers = (pattern: RegExp) => [...output.matchAll(pattern)].map((match) => Number(match[1]))
  const [gpu = ''] = output.split('\n')
  const [readGBps = Number.NaN] = numbers(/^reading .*: ([\d.]+) GB\/s$/gm)
  return { gpu, readGBps, gflops: 1000 * Math.max(...numbers(/(?:own kernel|cuBLASLt) ([\d.]+) TFLOP\/s/g)) }
}
