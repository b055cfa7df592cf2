// What a GPU reads and multiplies at best, as test/gpu/bench/kernels measures it.

import { execFileSync } from 'node:child_process'
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
 * @param program as built for another place, such as the emulator's; null: it is built for the GPU here
 * @throws Error where nvcc or a GPU is missing
 */
export function measureGpu(program: string | null): GpuRates {
  const built = join(root, 'build/gpu-bench/kernels')
  if (program === null)
    execFileSync('make', ['-s', '-C', join(root, 'test/gpu/bench'), `../../../build/gpu-bench/kernels`])
  // Of what it measures behind the rates: as little as it lets be asked for.
  const least = ['--models', '1', '--tokens', '1', '--rows', '65536']
  const small = program === null ? [] : ['--bytes', '100000', '--size', '64']
  const output = execFileSync(program ?? built, [...least, ...small], { encoding: 'utf8' })
  const numbers = (pattern: RegExp) => [...output.matchAll(pattern)].map((match) => Number(match[1]))
  const [gpu = ''] = output.split('\n')
  const [readGBps = Number.NaN] = numbers(/^reading .*: ([\d.]+) GB\/s$/gm)
  return { gpu, readGBps, gflops: 1000 * Math.max(...numbers(/(?:own kernel|cuBLASLt) ([\d.]+) TFLOP\/s/g)) }
}
