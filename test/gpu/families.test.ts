// Every decoder family through native/cuda: the logits of each golden's shortest prompt against transformers. The library that
// computes is the emulated one, or a GPU's where PARLEY_CUDA_LIBRARY names it.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { forwardLogits, planMemory, type StartOptions, startEngine } from '../../src/engine/addon.js'
import { loadUntokenized } from '../models/untokenized.js'

interface Golden {
  rounding: Record<'float16' | 'bfloat16', { max: number }>
  vocab_size: number
  prompts: { prompt: number[]; greedy: number[]; positions: number[] }[]
}

const fixtures = fileURLToPath(new URL('../fixtures/families', import.meta.url))
const goldens = fileURLToPath(new URL('../models/goldens/families', import.meta.url))
const options: Omit<StartOptions, 'dtype'> = {
  device: 'cuda',
  num_threads: 1,
  max_model_len: 304,
  max_num_batched_tokens: 64,
  kv_cache_bytes: 1 << 24,
}

const load = (name: string) => loadUntokenized(join(fixtures, name))

/** The shortest prompt that has a golden, and where its logits stand among the golden's. */
function shortest({ prompts, vocab_size }: Golden) {
  let offset = 0
  const placed = prompts.map(({ prompt, greedy, positions }) => {
    const first = offset
    offset += 4 * positions.length * vocab_size
    return { tokens: [...prompt, ...greedy], positions, first }
  })
  const [best] = placed.toSorted((a, b) => a.tokens.length - b.tokens.length)
  if (best === undefined) throw new Error('a golden without prompts')
  return best
}

test.each(readdirSync(fixtures).toSorted())('%s', async (name) => {
  const golden: Golden = JSON.parse(readFileSync(join(goldens, `${name}.json`), 'utf8'))
  const expected = readFileSync(join(goldens, `${name}.bin`))
  const { tokens, positions, first } = shortest(golden)
  const source = await load(name)
  // float32 as on the CPU; 16-bit types within 1.5 x the rounding of transformers itself.
  const bounds = {
    float32: 2e-4,
    float16: 1.5 * golden.rounding.float16.max,
    bfloat16: 1.5 * golden.rounding.bfloat16.max,
  }
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    const logits = forwardLogits(source, { ...options, dtype }, Int32Array.from(tokens))
    let worst = 0
    for (const [index, position] of positions.entries()) {
      for (let id = 0; id < golden.vocab_size; id++) {
        const want = expected.readFloatLE(first + 4 * (index * golden.vocab_size + id))
        const difference = Math.abs((logits[position * golden.vocab_size + id] ?? Number.NaN) - want)
        if (!(difference <= worst)) worst = difference // also keeps NaN
      }
    }
    expect(worst, `${dtype}, ${positions.length} positions`).toBeLessThan(bounds[dtype])
  }
})

// Steps that only decode are recorded as graphs and replayed: what one recorded must serve the next, with other tokens and pages. Graphs are made
// beside the steps: the second time they are there.
test.each(['neox-parallel', 'llama-plain'])('%s: greedy tokens of all prompts in one batch', async (name) => {
  const golden: Golden = JSON.parse(readFileSync(join(goldens, `${name}.json`), 'utf8'))
  const engine = await startEngine(await load(name), { ...options, dtype: 'float32' })
  try {
    const answers = () =>
      Promise.all(
        golden.prompts.map(async ({ prompt, greedy }) => {
          const sampling = { max_tokens: Math.min(greedy.length, 8), temperature: 0, ignore_eos: true }
          const tokens: number[] = []
          for await (const { token } of engine.submit({ prompt: Int32Array.from(prompt), sampling })) tokens.push(token)
          return tokens
        }),
      )
    const expected = golden.prompts.map(({ greedy }) => greedy.slice(0, 8))
    expect(await answers()).toEqual(expected)
    expect(await answers()).toEqual(expected)
  } finally {
    await engine.close()
  }
})

test('what the kernels have no room for is refused before a weight is loaded', async () => {
  const { spec } = await load('mixtral-plain')
  expect(() => planMemory({ ...spec, num_experts: 385 }, options)).toThrow(
    'a mixture of 385 experts: on a GPU there can be 384',
  )
  expect(() => planMemory({ ...spec, head_dim: 320 }, options)).toThrow(
    'attention heads of 320 dims: on a GPU they can have 256',
  )
})
