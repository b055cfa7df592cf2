// `--device` from the command line to the tokens: a server on the GPU that test/gpu/emulator is, or on the CPU and why.

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest'
import { EmulatorControl } from '../gpu/emulator_control.js'
import { Server } from './server.js'

const run = promisify(execFile)
const addon = new URL('../../dist/engine/addon.js', import.meta.url).href

interface Golden {
  prompts: { prompt: number[]; greedy: number[] }[]
}

const small = ['--port', '0', '--max-num-seqs', '4', '--threads', '1']

describe('on a GPU', () => {
  let server: Server
  let url: string
  beforeAll(async () => {
    server = Server.startWith({}, ...small, '--device', 'cuda', '--deterministic', '--dtype', 'float32')
    url = await server.ready()
  })
  afterAll(() => server.stop())

  test('completions have the tokens of transformers, all prompts at once', async () => {
    const golden: Golden = JSON.parse(readFileSync(new URL('../models/goldens/tales.json', import.meta.url), 'utf8'))
    const answers = await Promise.all(
      golden.prompts.map(async ({ prompt }) => {
        const body = { model: 'tales', prompt, max_tokens: 8, temperature: 0, return_token_ids: true, ignore_eos: true }
        const headers = { 'content-type': 'application/json' }
        const response = await fetch(`${url}/v1/completions`, { method: 'POST', headers, body: JSON.stringify(body) })
        return (await response.json()) as { choices: { token_ids: number[] }[]; system_fingerprint: string }
      }),
    )
    expect(answers.map(({ choices }) => choices[0]?.token_ids)).toEqual(
      golden.prompts.map(({ greedy }) => greedy.slice(0, 8)),
    )
    expect(answers[0]?.system_fingerprint).toMatch(/-float32-cuda8\.6-deterministic$/)
  })

  test('it said where it computes and where the memory goes', async () => {
    expect(server.output).toMatch(/ device +emulated GPU, compute capability 8\.6\n/)
    expect(server.output).toMatch(/ memory +4\.00 GiB on the GPU, of which 3\.60 GiB may be taken/)
    expect(server.output).toMatch(/ engine +cuda8\.6-deterministic\n/)
    expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/parley_build_info\{.*device="cuda"/)
  })
})

const without: [string, Record<string, string>, RegExp][] = [
  [
    'no library',
    { PARLEY_CUDA_LIBRARY: '/nowhere/parley_cuda.so' },
    /CUDA library is not built \(\/nowhere\/parley_cuda\.so\); `npm run setup` builds it/,
  ],
  ['something else in its place', { PARLEY_CUDA_LIBRARY: '/etc/hostname' }, /cannot be opened: .*hostname/],
  ['no driver', { PARLEY_EMULATED_DRIVER: '0' }, /no NVIDIA driver is here/],
  [
    'an old driver',
    { PARLEY_EMULATED_DRIVER: '12040' },
    /the NVIDIA driver is for CUDA 12\.4, .* was built with CUDA 13\.0/,
  ],
  ['no GPU', { PARLEY_EMULATED_DEVICES: '0' }, /the NVIDIA driver has no GPU for this process/],
  ['an old GPU', { PARLEY_EMULATED_CAPABILITY: '75' }, /compute capability 7\.5, expected 8\.0 or newer/],
  ['a GPU that the library was not built for', { PARLEY_EMULATED_CAPABILITY: '100' }, /PARLEY_CUDA_ARCHS=100/],
]

test.each(without)('%s: it is said', async (_what, environment, reason) => {
  const code = `import('${addon}').then(({ cudaDevices }) => cudaDevices(1)).catch(({ message }) => console.log(message))`
  const { stdout } = await run(process.execPath, ['--eval', code], { env: { ...process.env, ...environment } })
  expect(stdout).toMatch(reason)
})

test('cuda is refused where there is none', async () => {
  const server = Server.startWith({ PARLEY_EMULATED_DRIVER: '0' }, ...small, '--device', 'cuda')
  expect(await server.exited).toBe(2)
  expect(server.output).toMatch(/^parley: --device cuda: no NVIDIA driver is here/m)
})

test('auto says why it is the CPU', async () => {
  const server = Server.startWith({ PARLEY_EMULATED_DRIVER: '0' }, ...small)
  await server.ready()
  expect(server.output).toMatch(/ device +the CPU, for no GPU can be used: no NVIDIA driver is here/)
  expect(server.output).toMatch(/ engine +\w+, 1 thread\n/)
  expect(await server.stop()).toBe(0)
})

test('two ranks on two GPUs say so and answer', async () => {
  const two = ['--device', 'cuda', '--tensor-parallel-size', '2']
  const server = Server.startWith({ PARLEY_EMULATED_DEVICES: '2' }, ...small, ...two)
  const url = await server.ready()
  expect(server.output.match(/ device +emulated GPU/g)).toHaveLength(2)
  expect(server.output).toMatch(
    / engine +cuda8\.6 in 2 ranks\n +ranks +add up by kernels that read each other's GPU, from 8 MiB on by NCCL\n/,
  )
  const body = JSON.stringify({ model: 'tales', prompt: 'Once', max_tokens: 2 })
  const headers = { 'content-type': 'application/json' }
  expect((await fetch(`${url}/v1/completions`, { method: 'POST', headers, body })).status).toBe(200)
  expect(await server.stop()).toBe(0)
})

test('a model that is too large for the GPU is refused before its weights are read', async () => {
  const server = Server.startWith({ PARLEY_EMULATED_MEMORY: String(670 * 2 ** 20) }, ...small, '--device', 'cuda')
  expect(await server.exited).toBe(1)
  expect(server.output).toMatch(
    /tales does not fit: it takes .*, with 600 MiB for CUDA's context .* in all, and there are 670 MiB on the GPU, of which 603 MiB may be taken .*`parley fit --devices 1`/,
  )
  expect(server.output).not.toMatch(/\n\s+at /)
})

test('a GPU that computes nonsense does not serve', async () => {
  const control = new EmulatorControl()
  onTestFinished(() => control.close())
  control.fault('idle kernels')
  const environment = { PARLEY_EMULATED_CONTROL: control.path }
  const otherwise = 'the GPU computes otherwise than the CPU: logits of the bundled model differ by NaN'
  const [asked, auto] = [['--device', 'cuda'], []].map((wish) => Server.startWith(environment, ...small, ...wish))
  expect(await asked?.exited).toBe(1)
  expect(asked?.output).toContain(`parley: --device cuda: ${otherwise}`)
  await auto?.ready()
  expect(auto?.output).toContain(`the CPU, for no GPU can be used: ${otherwise}`)
  expect(await auto?.stop()).toBe(0)
})

test('an illegal access on the GPU ends the requests with an error, and the server is not ready any more', async () => {
  const control = new EmulatorControl()
  onTestFinished(() => control.close())
  const server = Server.startWith({ PARLEY_EMULATED_CONTROL: control.path }, ...small)
  const url = await server.ready()
  expect(server.output).toMatch(/ engine +cuda8\.6\n/) // auto takes the GPU where there is one
  const ask = (max_tokens: number, stream: boolean) =>
    fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'tales', prompt: 'Once', max_tokens, stream, ignore_eos: true }),
    })
  const text = (await ask(900, true)).text()
  await vi.waitUntil(() => control.counts().graph_launches > 3, { timeout: 30_000 })
  control.fault('illegal address')
  expect(await text).toMatch(/"code":"engine_failure"/)
  await expect.poll(async () => (await fetch(`${url}/health/ready`)).status).toBe(503)
  expect(await (await fetch(`${url}/health/live`)).json()).toMatchObject({ error: { code: 'engine_stalled' } })
  expect(await (await ask(1, false)).json()).toMatchObject({ error: { code: 'engine_failure' } })
  expect(await server.stop()).toBe(0)
})
