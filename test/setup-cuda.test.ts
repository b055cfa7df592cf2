// When set-up builds the CUDA library, and for which GPUs: with the Makefile as it is, and an nvcc and an nvidia-smi that only take notes.

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
// @ts-expect-error plain JavaScript: it also runs before TypeScript is installed
import { buildCuda } from '../src/setup-cuda.mjs'

const kernels = fileURLToPath(new URL('../native/cuda', import.meta.url))

/** A repository with one kernel and the host's part, and set-up in it. */
function repository(gpus: string) {
  const root = mkdtempSync(join(tmpdir(), 'parley-setup-'))
  onTestFinished(() => rmSync(root, { recursive: true }))
  for (const folder of ['bin', 'native/cuda', 'native/ops']) mkdirSync(join(root, folder), { recursive: true })
  for (const file of ['Makefile', 'gencode.mk']) copyFileSync(join(kernels, file), join(root, 'native/cuda', file))
  for (const source of ['cuda/a.cu', 'cuda/b.cc', 'ops/shared_collective.cc'])
    writeFileSync(join(root, 'native', source), '')
  const program = (name: string, script: string) =>
    writeFileSync(join(root, 'bin', name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
  const notes = join(root, 'notes')
  program('nvidia-smi', `printf '${gpus}'`)
  const compiles = (how: string) => program('nvcc', `echo "$@" >> ${notes}\n${how}`)
  // What stands behind -o is made.
  compiles('while [ "$1" != -o ]; do shift; done; echo > "$2"')
  const driver = join(root, 'bin/nvidia-smi')
  const lines: string[] = []
  /** What nvcc was called with, and what was said. */
  const setup = async (archs = '', drivers = [driver], more = {}) => {
    lines.length = 0
    rmSync(notes, { force: true })
    const env = { PATH: `${join(root, 'bin')}:${process.env.PATH}`, PARLEY_CUDA_ARCHS: archs, ...more }
    await buildCuda(root, (line: string) => lines.push(line), env, drivers)
    const calls = existsSync(notes) ? readFileSync(notes, 'utf8').trim().split('\n') : []
    return { calls, lines: [...lines], built: existsSync(join(root, 'build/Release/parley_cuda.so')) }
  }
  return { root, setup, compiles }
}

test('for the GPUs that are there, once, and again when a source or the GPUs asked for are others', async () => {
  const { root, setup } = repository('9.0\\n8.6\\n7.5\\n9.0\\n')
  const first = await setup()
  expect(first.built).toBe(true)
  expect(first.calls).toHaveLength(4) // three sources, and the library
  expect(first.calls[0]).toContain(
    '-gencode arch=compute_86,code=sm_86 -gencode arch=compute_90a,code=sm_90a -gencode arch=compute_90,code=compute_90',
  )
  expect(first.lines[0]).toBe(
    'building the CUDA library for compute capability 86, 90 (2 files, a minute or more each time)',
  )
  expect(await setup()).toEqual({ calls: [], lines: [], built: true })
  utimesSync(join(root, 'native/cuda/a.cu'), new Date(), new Date(Date.now() + 5000))
  expect((await setup()).calls).toHaveLength(2)
  const asked = await setup('80')
  expect(asked.calls).toHaveLength(4)
  expect(asked.calls[0]).not.toContain('compute_90')
})

test('not without a driver, unless compute capabilities are named, nor beside a library that is named', async () => {
  const { setup } = repository('')
  expect(await setup('', [])).toEqual({ calls: [], lines: [], built: false })
  expect(await setup('')).toEqual({ calls: [], lines: [], built: false })
  expect((await setup('80', [], { PARLEY_CUDA_LIBRARY: 'elsewhere/parley_cuda.so' })).built).toBe(false)
  expect((await setup('80, 90', [])).built).toBe(true)
  await expect(setup('sm_90')).rejects.toThrow(
    'PARLEY_CUDA_ARCHS: expected compute capabilities from 80 on, such as "80 90", got "sm_90"',
  )
})

test('a failure is said, stops nothing, and is not tried again before something has changed', async () => {
  const { root, setup, compiles } = repository('9.0\\n')
  compiles('echo "no such arch" >&2; exit 1')
  const failure = `the CUDA library could not be built: the server runs on the CPU. ${root}/build/cuda.log says why.`
  const first = await setup()
  expect(first.built).toBe(false)
  expect(first.lines.at(-1)).toBe(failure)
  expect(readFileSync(join(root, 'build/cuda.log'), 'utf8')).toContain('no such arch')
  expect(await setup()).toEqual({ calls: [], lines: [failure], built: false })
})
