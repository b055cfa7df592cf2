// Builds native/cuda against the emulator before the tests, and makes the addon open that in place of a GPU's library. Where
// PARLEY_CUDA_LIBRARY names another one, as on a machine with a GPU, nothing is built.

import { execFileSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { emulated, emulatedLibrary } from './emulator_control.js'

export function setup(): void {
  if (!emulated) return
  const folder = fileURLToPath(new URL('.', import.meta.url))
  execFileSync('make', ['-s', '-C', folder, `-j${availableParallelism()}`], { stdio: ['ignore', 'inherit', 'inherit'] })
  process.env.PARLEY_CUDA_LIBRARY = emulatedLibrary
}
