// Every decoder family against transformers, on tiny checkpoints and goldens that make_family_goldens.py made.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { forwardLogits, type ModelSource, type StartOptions, startEngine } from '../../src/engine/addon.js'
import type { ModelSpec } from '../../src/engine/contract.js'
import type { TokenEvent } from '../../src/engine/engine.js'
import { architectureOf, architectures } from '../../src/models/architectures.js'
import { readCheckpoint } from '../../src/models/checkpoint.js'
import { requireJson } from '../../src/models/folder.js'
import { frequencies } from '../../src/models/rope.js'
import { findSources } from '../../src/models/sources.js'
import { loadUntokenized } from './untokenized.js'

interface Golden {
  architecture: string
  weights_sha256: string
  rounding: Record<'float16' | 'bfloat16', { max: number; rms: number }>
  vocab_size: number
  prompts: { prompt: number[]; greedy: number[]; positions: number[] }[]
}

const fixtures = fileURLToPath(new URL('../fixtures/families', import.meta.url))
const goldens = fileURLToPath(new URL('goldens/families', import.meta.url))
const readme = fileURLToPath(new URL('../../README.md', import.meta.url))
const names = readdirSync(fixtures).toSorted()

const options: StartOptions = {
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 304,
  kv_cache_bytes: 1 << 24,
  guard_memory: true,
}

/** Encoder-decoders have goldens of their own: t5.test.ts. */
const decoders = Object.keys(architectures).filter((name) => !name.includes('T5'))

/** Largest difference of logits that counts as agreement in float32. */
const TOLERANCE = 2e-4

function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(join(goldens, `${name}.json`), 'utf8'))
}

/** The folder's spec and tensors; a tokenizer takes no part in the numbers. */
async function load(name: string): Promise<ModelSource> {
  const sources = await loadUntokenized(join(fixtures, name))
  expect(sources.warnings).toEqual([])
  return sources
}

/** The difference of all golden logits from the engine's. */
function compareLogits(name: string, model: ModelSource, changed: Partial<StartOptions> = {}) {
  const golden = readGolden(name)
  const bytes = readFileSync(join(goldens, `${name}.bin`))
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

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = []
  for await (const item of items) list.push(item)
  return list
}

/** Architecture → the largest difference measured in this run. */
const measured = new Map<string, number>()

describe.each(names)('%s', (name) => {
  const golden = readGolden(name)

  test('the golden was made from these weights', () => {
    const bytes = readFileSync(join(fixtures, name, 'model.safetensors'))
    const hash = createHash('sha256').update(bytes).digest('hex')
    expect(hash, 'weights changed: run test/models/make_family_goldens.py').toBe(golden.weights_sha256)
  })

  test.each(['auto', 'baseline'] as const)('float32 logits agree with transformers (ISA %s)', async (isa) => {
    const { max } = compareLogits(name, await load(name), { isa })
    expect(max).toBeLessThan(TOLERANCE)
    measured.set(golden.architecture, Math.max(max, measured.get(golden.architecture) ?? 0))
  })

  test('greedy tokens of each prompt are identical, all prompts in one batch', async () => {
    const engine = await startEngine(await load(name), options)
    try {
      const results = await Promise.all(
        golden.prompts.map(async ({ prompt, greedy }) => {
          const sampling = { max_tokens: greedy.length, temperature: 0, ignore_eos: true }
          const events = await all(engine.submit({ prompt: Int32Array.from(prompt), sampling }))
          return events.map(({ token }) => token)
        }),
      )
      expect(results).toEqual(golden.prompts.map(({ greedy }) => greedy))
    } finally {
      await engine.close()
    }
  })

  test.each(['float16', 'bfloat16'] as const)(
    '%s stays within 1.5 x the rounding of transformers itself',
    async (dtype) => {
      const difference = compareLogits(name, await load(name), { dtype })
      expect(difference.rms).toBeLessThan(1.5 * golden.rounding[dtype].rms)
      expect(difference.max).toBeLessThan(1.5 * golden.rounding[dtype].max)
    },
  )
})

test.each<[string, string, Partial<ModelSpec>]>([
  ['the kind of norm', 'llama-plain', { norm: 'layer' }],
  ["the norms' epsilon", 'gpt2-odd', { norm_eps: 1e-5 }],
  ['the activation', 'llama-plain', { activation: 'gelu_tanh' }],
  ['the kind of GELU', 'opt-galactica', { activation: 'gelu_tanh' }],
  ['the scaling of rotary frequencies', 'llama-linear', { rope_frequencies: frequencies(10000, 8) }],
  ['the scale of cosines and sines', 'llama-yarn', { rope_scale: 1 }],
  ['the layout of rotated pairs', 'gptj-plain', { rope_layout: 'half_split' }],
  ['the frequencies of layers with a window', 'gemma3-windows', { local_rope_frequencies: frequencies(20000, 16) }],
  ['which frequencies are for long sequences', 'phi3-long', { long_rope_above: 4096 }],
  ['the attention scale', 'gpt-neo-windows', { attention_scale: 0.9 }],
  ['the attention scale of deeper layers', 'gpt2-odd', { attention_scale_by_layer: false }],
  ['a window that is one key too long', 'mistral-window', { layer_windows: Int32Array.of(33, 33) }],
  ['a window that is one key too short', 'gpt-neo-windows', { layer_windows: Int32Array.of(0, 23, 0, 23) }],
  ['which layers have a window', 'qwen2-windows', { layer_windows: Int32Array.of(24, 24, 24) }],
  [
    'the slopes of ALiBi',
    'bloom-7-heads',
    { alibi_slopes: Float32Array.of(0.5, 0.25, 0.125, 0.0625, 0.5, 0.25, 0.125) },
  ],
  ["the rounding of Falcon's ALiBi", 'falcon-rw', { alibi_in_bfloat16: false }],
  ['the cap of scores', 'gemma2-windows', { attention_softcap: 6 }],
  ['the cap of logits', 'gemma2-windows', { logit_softcap: 5 }],
  ['the scale of the embedding', 'gemma-plain', { embedding_scale: 5.6 }],
  ['norms of queries and keys', 'olmo2-plain', { norm_eps: 1e-2 }],
  ['how many experts a token is given to', 'mixtral-plain', { num_experts_per_tok: 1 }],
  ['whether shares add up to 1', 'qwen3-moe-dense-layers', { norm_topk_prob: true }],
  ['whether shares add up to 1, one expert', 'qwen3-moe-top1-window', { norm_topk_prob: true }],
  ['the topology', 'neox-parallel', { topology: 'sequential' }],
])('the goldens notice a wrong value of %s', async (_, name, wrong) => {
  const model = await load(name)
  const difference = compareLogits(name, { ...model, spec: { ...model.spec, ...wrong } })
  expect(difference.max).toBeGreaterThan(5 * TOLERANCE)
})

test.each(['mixtral-plain', 'qwen3-moe-dense-layers'])(
  '%s: experts that many rows share give each row the bits that it has alone, in pieces and with other threads',
  async (name) => {
    const model = await load(name)
    const prompts = readGolden(name).prompts.map(({ prompt }) => Int32Array.from(prompt))
    const sampling = { max_tokens: 8, temperature: 0, ignore_eos: true, num_logprobs: 2 }
    const run = async (changed: Partial<StartOptions>, together: boolean) => {
      const engine = await startEngine(model, { ...options, ...changed })
      try {
        const results: Promise<TokenEvent[]>[] = []
        for (const prompt of prompts) {
          results.push(all(engine.submit({ prompt, sampling })))
          if (!together) await results.at(-1)
        }
        const tokens = (await Promise.all(results)).flat()
        return tokens.map(({ token, logprob, top }) => ({ token, logprob, top }))
      } finally {
        await engine.close()
      }
    }
    const alone = await run({}, false)
    expect(alone).toHaveLength(8 * prompts.length)
    expect(await run({}, true)).toEqual(alone)
    expect(await run({ max_num_batched_tokens: 7, num_threads: 2 }, true)).toEqual(alone)
  },
)

test('a mixture that lacks an expert is refused, and the expert named', async () => {
  const folder = join(fixtures, 'qwen3-moe-plain')
  const config = await requireJson(join(folder, 'config.json'), 'a config')
  const { row } = architectureOf(config)
  const spec = { ...row.spec(config), num_sampled_ids: 96 }
  const checkpoint = await readCheckpoint(folder)
  const name = 'model.layers.1.mlp.experts.7.up_proj.weight'
  checkpoint.tensors.delete(name)
  await expect(findSources(row, config, spec, checkpoint)).rejects.toThrow(
    `model.safetensors: expected tensors that are not in it: ${name}; found`,
  )
  const { tensors, ...model } = await load('qwen3-moe-plain')
  const lacking = tensors.filter(({ role, layer, part }) => role !== 'expert_up_weight' || layer !== 1 || part !== 7)
  expect(() => forwardLogits({ ...model, tensors: lacking }, options, Int32Array.of(1))).toThrow(
    'layer 1 expert_up_weight 7: expected in the checkpoint, found nothing',
  )
})

// The README says for every architecture how far its logits were from transformers'; another machine may round a little differently.
test("the README's table has every architecture with the difference that is measured here", () => {
  const rows = [...readFileSync(readme, 'utf8').matchAll(/^\| `(\w+)` \|.*\| ([\d.]+e-\d) \|$/gm)]
  const stated = new Map(rows.map(([, architecture = '', difference]) => [architecture, Number(difference)]))
  for (const name of decoders) {
    const difference = measured.get(name) ?? 0
    expect(difference, `${name}: README says ${stated.get(name)}, measured`).toBeLessThan(2 * (stated.get(name) ?? 0))
  }
})

test('every architecture has a golden', () => {
  const covered = new Set(names.map((name) => readGolden(name).architecture))
  expect([...covered].toSorted()).toEqual(decoders.toSorted())
})
