// Builds native/cuda against the emulator before the tests, and makes the addon open that in place of a GPU's library: unless
// PARLEY_CUDA_LIBRARY names another one, as on a machine with a GPU.

import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'

export function setup(): void {
  const folder = fileURLToPath(new URL('.', import.meta.url))
  execFileSync('make', ['-s', '-C', folder, `-j${availableParallelism()}`], { stdio: ['ignore', 'inherit', 'inherit'] })
  process.env.PARLEY_CUDA_LIBRARY ??= fileURLToPath(
    new URL('../../build/emulated/parley_cuda_emulated.so', import.meta.url),
  )
}
