// Whether the GPU is the emulated one; what that has done so far, and the faults that it is asked for: Control in emulator/runtime.cc.

import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/** what global-setup.ts builds */
export const emulatedLibrary = fileURLToPath(new URL('../../build/emulated/parley_cuda_emulated.so', import.meta.url))

/** False where PARLEY_CUDA_LIBRARY names a real GPU's library. */
export const emulated = resolve(process.env.PARLEY_CUDA_LIBRARY || emulatedLibrary) === emulatedLibrary

const counters = ['allocations', 'copies_to_device', 'copies_to_host', 'launches', 'graphs', 'graph_launches'] as const
const faults = [
  'none',
  'no memory',
  'illegal address',
  'idle kernels',
  'no graphs',
  'slow graphs',
  'hung GPU',
  'hung meetings',
] as const

export class EmulatorControl {
  readonly #folder = mkdtempSync(join(tmpdir(), 'parley-emulator-'))
  /** what PARLEY_EMULATED_CONTROL must name before a process opens the library */
  readonly path = join(this.#folder, 'control')
  readonly #file: number

  constructor() {
    writeFileSync(this.path, new Uint8Array(8 * (counters.length + 1)))
    this.#file = openSync(this.path, 'r+')
  }

  /** How often each was called, since the process began. */
  counts(): Record<(typeof counters)[number], number> {
    const numbers = new BigUint64Array(counters.length)
    readSync(this.#file, numbers, 0, numbers.byteLength, 0)
    return Object.fromEntries(counters.map((name, i) => [name, Number(numbers[i])])) as ReturnType<typeof this.counts>
  }

  fault(kind: (typeof faults)[number]): void {
    writeSync(this.#file, BigUint64Array.of(BigInt(faults.indexOf(kind))), 0, 8, 8 * counters.length)
  }

  close(): void {
    closeSync(this.#file)
    rmSync(this.#folder, { recursive: true })
  }
}
