// The programs of test/gpu/programs: native/cuda on the CPU, by way of the emulator.

import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeEach, expect, test } from 'vitest'
import { emulated } from './emulator_control.js'

const run = promisify(execFile)
const folder = fileURLToPath(new URL('.', import.meta.url))
const programs = readdirSync(join(folder, 'programs'))
  .filter((file) => file.endsWith('.cu'))
  .map((file) => basename(file, '.cu'))

beforeEach(({ skip }) => skip(!emulated, 'the emulator is not built; run.sh runs these on a GPU'))

test.each(programs)('%s', async (program) => {
  const { stdout } = await run(join(folder, '../../build/emulated', program))
  expect(stdout).toContain(`${program}: ok`)
})

test('a load from an address that is not aligned ends the process', async () => {
  const program = run(join(folder, '../../build/emulated/emulator'), ['unaligned'])
  await expect(program).rejects.toMatchObject({ signal: expect.stringMatching(/^SIG(ILL|TRAP)$/) })
})

// The emulated GPU is one of 8.6 elsewhere.
test.each(['linear', 'experts', 'attention'])('%s, with the kernels of compute capability 9.0', async (program) => {
  const env = { ...process.env, PARLEY_EMULATED_CAPABILITY: '90' }
  const { stdout } = await run(join(folder, '../../build/emulated', program), { env })
  expect(stdout).toContain(`${program}: ok`)
})

test('the benchmark of kernels', async () => {
  const quick = ['--bytes', '100000', '--size', '64', '--tokens', '1,16', '--models', '1', '--rows', '65536']
  const { stdout } = await run(join(folder, '../../build/emulated/bench/kernels'), quick)
  expect(stdout.match(/^Pythia-410M .*%/gm)).toHaveLength(5)
})

test('the benchmark of models', async () => {
  const build = join(folder, '../../build')
  const out = join(build, 'emulated/bench')
  const addon = join(build, 'Release/obj.target')
  await run('make', ['-s', '-C', join(folder, 'bench'), `OUT=${out}`, `ADDON=${addon}`, join(out, 'models')])
  const quick = ['--models', 'tiny', '--kv-gb', '0.001', '--contexts', '32', '--batches', '1,2', '--prompts', '16']
  const requests = ['--requests', '3', '--lengths', '5,4']
  const rates = ['--gbps', '1', '--tflops', '1', '--device', 'cuda', '--folder', tmpdir()]
  const { stdout } = await run(join(out, 'models'), [...quick, ...requests, ...rates])
  expect(stdout.match(/\b\d+% of the floor/g)).toHaveLength(4)
  expect(stdout).toMatch(/first token from process start: [\d.]+ s/)
  expect(stdout).toMatch(/offline, 3 requests of 5 \+ 4 tokens, 3 at a time: +[\d.]+ output tokens\/s/)
  expect(stdout).toMatch(/GPU idle between steps: median [\d.]+ us, 99th percentile [\d.]+ us, of [1-9]/)
})
