// Parley's engine against transformers, on goldens that make_goldens.py made.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { forwardLogits, type StartOptions, startEngine } from '../../src/engine/addon.js'
import type { ModelSpec } from '../../src/engine/contract.js'
import type { Engine } from '../../src/engine/engine.js'
import { loadModel } from '../../src/models/load.js'
import type { Model } from '../../src/models/model.js'
import { frequencies } from '../../src/models/rope.js'

interface Golden {
  model: string
  weights_sha256: string[]
  vocab_size: number
  num_sampled_ids: number
  prompts: { text?: string; prompt: number[]; greedy: number[]; logprobs: number[]; positions: number[] }[]
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = fileURLToPath(new URL('goldens', import.meta.url))
const names = readdirSync(folder)
  .filter((name) => name.endsWith('.bin'))
  .map((name) => name.slice(0, -'.bin'.length))

const options: StartOptions = {
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 256,
  kv_cache_bytes: 1 << 24,
  guard_memory: true,
}

function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'))
}

/** The difference of all golden logits from the engine's. */
function compareLogits(name: string, model: Model, changed: Partial<StartOptions> = {}): { max: number; rms: number } {
  const golden = readGolden(name)
  const bytes = readFileSync(join(folder, `${name}.bin`))
  let [max, squares, count] = [0, 0, 0]
  for (const { prompt, greedy, positions } of golden.prompts) {
    const logits = forwardLogits(model, { ...options, ...changed }, Int32Array.from([...prompt, ...greedy]))
    for (const position of positions) {
      for (let id = 0; id < golden.vocab_size; id++, count++) {
        const difference = Math.abs((logits[position * golden.vocab_size + id] ?? NaN) - bytes.readFloatLE(4 * count))
        if (!(difference <= max)) max = difference // also keeps NaN
        squares += difference ** 2
      }
    }
  }
  expect(4 * count).toBe(bytes.length)
  return { max, rms: Math.sqrt(squares / count) }
}

async function greedy(engine: Engine, prompt: number[]): Promise<{ tokens: number[]; logprobs: number[] }> {
  const result = { tokens: [] as number[], logprobs: [] as number[] }
  const sampling = { max_tokens: 64, temperature: 0, ignore_eos: true, num_logprobs: 1 }
  for await (const { token, logprob } of engine.submit({ prompt: Int32Array.from(prompt), sampling })) {
    result.tokens.push(token)
    result.logprobs.push(logprob)
  }
  return result
}

async function score(engine: Engine, prompt: number[]): Promise<Float32Array> {
  const request = { prompt: Int32Array.from(prompt), sampling: { max_tokens: 0, num_prompt_logprobs: 0 } }
  for await (const event of engine.submit(request)) return event.prompt?.logprobs ?? new Float32Array()
  throw new Error('no event')
}

describe.each(names)('%s', (name) => {
  const golden = readGolden(name)
  const path = join(root, golden.model)

  const hashes = readdirSync(path)
    .filter((file) => file.endsWith('.safetensors'))
    .toSorted()
    .map((file) =>
      createHash('sha256')
        .update(readFileSync(join(path, file)))
        .digest('hex'),
    )
  const stale = hashes.join() !== golden.weights_sha256.join()

  test('the goldens were made from these weights', () => {
    expect(hashes, 'weights changed: run test/models/make_goldens.py').toEqual(golden.weights_sha256)
  })

  test.skipIf(stale).each(['auto', 'baseline'] as const)(
    'float32 logits agree with transformers to 1e-4 (ISA %s)',
    async (isa) => {
      const model = await loadModel(path)
      expect(model.spec.num_sampled_ids).toBe(golden.num_sampled_ids)
      expect(compareLogits(name, model, { isa }).max).toBeLessThan(1e-4)
    },
  )

  test.skipIf(stale)('64 greedy tokens of each prompt are identical, all prompts in one batch', async () => {
    const engine = await startEngine(await loadModel(path), options)
    try {
      const results = await Promise.all(golden.prompts.map(({ prompt }) => greedy(engine, prompt)))
      expect(results.map(({ tokens }) => tokens)).toEqual(golden.prompts.map((prompt) => prompt.greedy))
      for (const [index, { logprobs }] of results.entries()) {
        for (const [step, logprob] of logprobs.entries()) {
          expect(Math.abs(logprob - (golden.prompts[index]?.logprobs[step] ?? NaN))).toBeLessThan(1e-4)
        }
      }
    } finally {
      await engine.close()
    }
  })

  test.skipIf(stale)(
    'log-probabilities of a prompt are the log-softmax of the golden logits, in chunks of 7',
    async () => {
      const engine = await startEngine(await loadModel(path), { ...options, max_num_batched_tokens: 7 })
      const bytes = readFileSync(join(folder, `${name}.bin`))
      let at = 0
      try {
        for (const { prompt, greedy, logprobs, positions } of golden.prompts) {
          const sequence = [...prompt, ...greedy]
          const scored = await score(engine, sequence)
          for (const [i, logprob] of logprobs.entries()) {
            expect(Math.abs((scored[prompt.length + i - 1] ?? NaN) - logprob)).toBeLessThan(1e-4)
          }
          for (const position of positions) {
            const row = Array.from({ length: golden.vocab_size }, (_, id) => bytes.readFloatLE(4 * (at + id)))
            at += golden.vocab_size
            const next = sequence[position + 1]
            if (next === undefined) continue
            const logprob = (row[next] ?? NaN) - Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0))
            expect(Math.abs((scored[position] ?? NaN) - logprob)).toBeLessThan(1e-4)
          }
        }
      } finally {
        await engine.close()
      }
    },
  )

  test.skipIf(stale)('text prompts have the ids that Hugging Face gives them', async () => {
    const { tokenizer } = await loadModel(path)
    for (const { text, prompt } of golden.prompts)
      if (text !== undefined) expect(tokenizer.encode(text)).toEqual(prompt)
  })
})

// The weights are exact in 16 bits here; what differs is the rounding of keys and values, of relative size 2^-11 and 2^-8. Measured:
// 3.3e-3 at most and 6e-4 rms for float16, 2.5e-2 and 5e-3 for bfloat16, on logits with a standard deviation of 2.8.
test.each([
  { name: 'neox-head80-f16', dtype: 'float16', max: 1e-2, rms: 1.5e-3 },
  { name: 'neox-bf16', dtype: 'bfloat16', max: 6e-2, rms: 1.2e-2 },
] as const)('$name in its own $dtype stays within the rounding of the KV cache', async ({ name, dtype, max, rms }) => {
  const model = await loadModel(join(root, readGolden(name).model))
  expect(model.checkpointDtype).toBe(dtype)
  const difference = compareLogits(name, model, { dtype })
  expect(difference.max).toBeLessThan(max)
  expect(difference.rms).toBeLessThan(rms)
})

test.each<[string, string, Partial<ModelSpec>]>([
  ['the rotary dims', 'neox-parallel', { rope_frequencies: frequencies(10000, 6) }],
  ['the base of the rotary frequencies', 'neox-bf16', { rope_frequencies: frequencies(520, 4) }],
  ['the attention scale', 'neox-parallel', { attention_scale: 0.26 }],
  ['the topology', 'neox-sequential', { topology: 'parallel' }],
  ['the kind of GELU', 'neox-tied', { activation: 'gelu' }],
  ["the LayerNorm's epsilon", 'neox-head80-f16', { norm_eps: 1e-3 }],
])('the goldens notice a wrong value of %s', async (_, name, wrong) => {
  const model = await loadModel(join(root, readGolden(name).model))
  const difference = compareLogits(name, { ...model, spec: { ...model.spec, ...wrong } })
  expect(difference.max).toBeGreaterThan(1e-3)
})
