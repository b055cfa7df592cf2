// A GPU that hangs: kernels are started and never end. What runs is told, nothing more is taken, and the process can go.

import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeEach, expect, test } from 'vitest'
import { type StartOptions, startEngine } from '../../src/engine/addon.js'
import { EngineFailure } from '../../src/engine/engine.js'
import { loadUntokenized } from '../models/untokenized.js'
import { EmulatorControl, emulated } from './emulator_control.js'

const control = new EmulatorControl()
process.env.PARLEY_EMULATED_CONTROL = control.path
beforeEach(({ skip }) => skip(!emulated, 'no GPU hangs on demand but the emulated one'))
afterEach(() => {
  control.fault('none')
  delete process.env.PARLEY_EMULATED_DEVICES
})
afterAll(() => control.close())

const source = await loadUntokenized(fileURLToPath(new URL('../fixtures/families/llama-plain', import.meta.url)))
const request = { prompt: Int32Array.of(5, 6, 7), sampling: { max_tokens: 56, ignore_eos: true, max_unread: 4 } }

// The one GPU comes last: behind it nothing runs in this process.
test.each([
  [2, 'hung GPU', /^(rank 1 of 2 has|all 2 ranks have) stopped: /],
  [2, 'hung meetings', /^all 2 ranks have stopped: they have waited for each other for 400 ms$/],
  [1, 'hung GPU', /^CUDA: step: the GPU has stopped: it has not done it in 400 ms$/],
] as const)('%i ranks, %s', async (ranks, fault, reason) => {
  process.env.PARLEY_EMULATED_DEVICES = String(ranks)
  const options: StartOptions = {
    device: 'cuda',
    max_model_len: 64,
    kv_cache_bytes: 1 << 18,
    tensor_parallel_size: ranks,
    rank_stopped_after_ms: 400,
    gpu_stopped_after_ms: 400,
  }
  const engine = await startEngine(source, options)
  try {
    const reading = async () => {
      for await (const _ of engine.submit(request)) control.fault(fault)
    }
    const failure: unknown = await reading().catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(EngineFailure)
    expect((failure as EngineFailure).message).toMatch(reason)
    expect(engine.stats()).toMatchObject({ num_stopped_ranks: 1, num_requests_running: 0, num_pages_used: 0 })
  } finally {
    await engine.close()
  }
})
