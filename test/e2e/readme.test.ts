// The README's JavaScript, as it stands there, against the bundled model.

import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startRealServer } from '../http/real_server.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8')
const examples = [...readme.matchAll(/^```js\n(.*?)^```$/gms)].map(([, code = '']) => code)

test('examples end well and say something', async () => {
  const packages = examples.flatMap((code) =>
    [...code.matchAll(/^import .* from '([^':]+)'/gm)].map(([, name]) => name),
  )
  expect(new Set(packages)).toEqual(
    new Set([
      ...['openai', 'openai/realtime/ws', 'ws', '@anthropic-ai/sdk', '@langchain/openai', 'ai'],
      '@ai-sdk/openai-compatible',
    ]),
  )
  const url = await startRealServer(`${root}models/tales`, { max_model_len: 1024, kv_cache_bytes: 1 << 26 })
  const { port } = new URL(url)
  const here = (code: string) => code.replaceAll(/(?<=127\.0\.0\.1:|connect\()8000/g, port)
  const found = await Promise.all(examples.map((code) => run(here(code))))
  expect(found).toEqual(examples.map(() => ({ status: 0, errors: '', output: expect.stringMatching(/.{20}/s) })))
})

/** Runs an ES module that finds the repository's packages. */
async function run(code: string): Promise<{ status: number | null; output: string; errors: string }> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', code], { cwd: root })
  const [output, errors, status] = await Promise.all([
    child.stdout.setEncoding('utf8').reduce((all: string, part: string) => all + part, ''),
    child.stderr.setEncoding('utf8').reduce((all: string, part: string) => all + part, ''),
    new Promise<number | null>((resolve) => child.once('exit', resolve)),
  ])
  return { status, output, errors }
}
