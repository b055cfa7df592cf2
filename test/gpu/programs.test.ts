// The programs of test/gpu/programs: native/cuda on the CPU, by way of the emulator.

import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'

const run = promisify(execFile)
const folder = fileURLToPath(new URL('.', import.meta.url))
const programs = readdirSync(join(folder, 'programs'))
  .filter((file) => file.endsWith('.cu'))
  .map((file) => basename(file, '.cu'))

test.each(programs)('%s', async (program) => {
  const { stdout } = await run(join(folder, '../../build/emulated', program))
  expect(stdout).toContain(`${program}: ok`)
})

test('the benchmark of kernels', async () => {
  const quick = ['--bytes', '100000', '--size', '64', '--tokens', '1,16', '--models', '1', '--rows', '65536']
  const { stdout } = await run(join(folder, '../../build/emulated/bench/kernels'), quick)
  expect(stdout.match(/^Pythia-410M .*%/gm)).toHaveLength(5)
})
