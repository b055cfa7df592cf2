// Encoder-decoders against transformers, on goldens that make_t5_goldens.py made.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { forwardLogits, type StartOptions, startEngine } from '../../src/engine/addon.js'
import type { ModelSpec } from '../../src/engine/contract.js'
import type { Engine, TokenEvent } from '../../src/engine/engine.js'
import { loadModel } from '../../src/models/load.js'
import type { Model } from '../../src/models/model.js'
import { copyOf, editJson } from './scratch.js'

interface Golden {
  model: string
  weights_sha256: string
  rounding: Record<'float16' | 'bfloat16', { max: number; rms: number }>
  vocab_size: number
  decoder_start_token: number
  prompts: { prompt: number[]; greedy: number[]; logprobs: number[]; positions: number[] }[]
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = fileURLToPath(new URL('goldens-t5', import.meta.url))
const names = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .map((name) => name.slice(0, -'.json'.length))

const options: StartOptions = {
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 512,
  kv_cache_bytes: 1 << 24,
  guard_memory: true,
  pace_prompts: false, // how many run together would depend on the time that they take
}

function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'))
}

/** The difference of all golden logits from the engine's. */
function compareLogits(name: string, model: Model, changed: Partial<StartOptions> = {}) {
  const golden = readGolden(name)
  const bytes = readFileSync(join(folder, `${name}.bin`))
  let [max, squares, count] = [0, 0, 0]
  for (const { prompt, greedy, positions } of golden.prompts) {
    const tokens = Int32Array.from([golden.decoder_start_token, ...greedy])
    const logits = forwardLogits(model, { ...options, ...changed }, tokens, Int32Array.from(prompt))
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

/** Architecture → the largest difference measured in this run. */
const measured = new Map<string, number>()

describe.each(names)('%s', (name) => {
  const golden = readGolden(name)
  const path = join(root, golden.model)

  test('the goldens were made from these weights', () => {
    const hash = createHash('sha256')
      .update(readFileSync(join(path, 'model.safetensors')))
      .digest('hex')
    expect(hash, 'weights changed: run test/models/make_t5_goldens.py').toBe(golden.weights_sha256)
  })

  test.each(['auto', 'baseline'] as const)('float32 logits agree with transformers to 2e-4 (ISA %s)', async (isa) => {
    const model = await loadModel(path)
    expect(model.warnings).toEqual([])
    const { max } = compareLogits(name, model, { isa })
    expect(max).toBeLessThan(2e-4)
    measured.set(model.architecture, Math.max(max, measured.get(model.architecture) ?? 0))
  })

  // These hidden states stay in float16's range, those of real checkpoints do not.
  test.each(['float16', 'bfloat16'] as const)(
    '%s stays within 1.5 x the rounding of transformers itself',
    async (dtype) => {
      const difference = compareLogits(name, await loadModel(path), { dtype })
      expect(difference.rms).toBeLessThan(1.5 * golden.rounding[dtype].rms)
      expect(difference.max).toBeLessThan(1.5 * golden.rounding[dtype].max)
    },
  )

  test('logits have the same bits however the prompt is cut', async () => {
    const model = await loadModel(path)
    const { prompt, greedy } = golden.prompts[3] as Golden['prompts'][0]
    const logits = [512, 64, 7].map((max_num_batched_tokens) =>
      forwardLogits(model, { ...options, max_num_batched_tokens }, Int32Array.from(greedy), Int32Array.from(prompt)),
    )
    expect(logits[1]).toEqual(logits[0])
    expect(logits[2]).toEqual(logits[0])
  })
})

test.each<[string, string, Partial<ModelSpec>]>([
  ['the number of buckets', 't5-v1.1', { relative_max_distance: 41 }],
  ['the scale of the unembedding', 't5-v1.0', { unembedding_scale: 1 }],
  ['the attention scale', 'mt5', { attention_scale: 0.9 }],
  ['the kind of activation', 't5-v1.1', { activation: 'gelu' }],
  ['the epsilon', 'mt5', { norm_eps: 1e-3 }],
])('the goldens notice a wrong value of %s', async (_, name, wrong) => {
  const model = await loadModel(join(root, readGolden(name).model))
  expect(compareLogits(name, { ...model, spec: { ...model.spec, ...wrong } }).max).toBeGreaterThan(1e-3)
})

test("the README's table has the encoder-decoders with the difference that is measured here", () => {
  for (const name of ['MT5ForConditionalGeneration', 'T5ForConditionalGeneration']) {
    const [, stated] =
      readFileSync(join(root, 'README.md'), 'utf8').match(`\n\\| \`${name}\` \\|.*\\| ([\\d.]+e-\\d) \\|\n`) ?? []
    expect(measured.get(name), `${name}: README says ${stated}, measured`).toBeLessThan(2 * Number(stated))
  }
})

// --- through the engine ---

interface Run {
  tokens: number[]
  logprobs: number[]
}

async function collect(events: AsyncIterable<TokenEvent>): Promise<Run> {
  const run: Run = { tokens: [], logprobs: [] }
  for await (const { token, logprob } of events) {
    run.tokens.push(token)
    run.logprobs.push(logprob)
  }
  return run
}

function submit(engine: Engine, prompt: number[], max_tokens = 64, signal?: AbortSignal): Promise<Run> {
  const sampling = { max_tokens, temperature: 0, ignore_eos: true, num_logprobs: 1 }
  return collect(engine.submit({ prompt: Int32Array.from(prompt), sampling }, signal))
}

async function withEngine<T>(
  model: Model,
  changed: Partial<StartOptions>,
  use: (engine: Engine) => Promise<T>,
): Promise<T> {
  const engine = await startEngine(model, { ...options, ...changed })
  try {
    return await use(engine)
  } finally {
    await engine.close()
  }
}

/** Bytes of one page of a model in float32. */
function pageBytes({ spec }: Model): number {
  return 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * 16 * 4
}

describe.each(names)('%s in the engine', (name) => {
  const golden = readGolden(name)
  const path = join(root, golden.model)
  const all = golden.prompts.map(({ prompt }) => prompt)
  const expected = golden.prompts.map(({ greedy }) => greedy)

  test('gives the 64 greedy tokens of each prompt, all prompts in one batch', async () => {
    await withEngine(await loadModel(path), {}, async (engine) => {
      const runs = await Promise.all(all.map((prompt) => submit(engine, prompt)))
      expect(runs.map(({ tokens }) => tokens)).toEqual(expected)
      for (const [index, { logprobs }] of runs.entries()) {
        for (const [step, logprob] of logprobs.entries())
          expect(Math.abs(logprob - (golden.prompts[index]?.logprobs[step] ?? NaN))).toBeLessThan(2e-4)
      }
    })
  })

  test('gives the same bits alone, in a crowd, by some blocks a step, with other threads and after preemptions', async () => {
    const model = await loadModel(path)
    const alone: Run[] = []
    await withEngine(model, {}, async (engine) => {
      for (const prompt of all) alone.push(await submit(engine, prompt))
    })
    const variants: Partial<StartOptions>[] = [
      { max_num_batched_tokens: 16, num_threads: 2 }, // a prompt of 300 tokens takes a block or two a step
      { max_num_seqs: 2 },
      { kv_cache_bytes: 40 * pageBytes(model) }, // the five need 30 pages for prompts and 25 for completions
    ]
    for (const variant of variants) {
      await withEngine(model, variant, async (engine) => {
        expect(await Promise.all(all.map((prompt) => submit(engine, prompt)))).toEqual(alone)
        const stats = engine.stats()
        expect(stats.num_pages_used).toBe(0)
        if (variant.kv_cache_bytes !== undefined) expect(stats.num_preemptions).toBeGreaterThan(0)
        expect(stats.num_prompt_tokens).toBe(all.flat().length)
      })
    }
  })
})

test('a request that is cancelled while its prompt is encoded leaves no pages and does not disturb the others', async () => {
  const golden = readGolden('t5-v1.1')
  const [short, , , , long] = golden.prompts.map(({ prompt }) => prompt) as [
    number[],
    number[],
    number[],
    number[],
    number[],
  ]
  await withEngine(await loadModel(join(root, golden.model)), { max_num_batched_tokens: 1 }, async (engine) => {
    for (let round = 0; round < 20; round++) {
      const abort = new AbortController()
      const cancelled = submit(engine, long, 64, abort.signal)
      const other = submit(engine, short, 8)
      for (let turn = 0; turn < round; turn++) await new Promise((resolve) => setImmediate(resolve))
      abort.abort()
      await cancelled
      expect((await other).tokens).toEqual(golden.prompts[0]?.greedy.slice(0, 8))
    }
    expect((await submit(engine, long, 8)).tokens).toEqual(golden.prompts[4]?.greedy.slice(0, 8))
    expect(engine.stats().num_pages_used).toBe(0)
  })
})

test('prompt and completion together fill the context, and no more', async () => {
  const golden = readGolden('mt5')
  await withEngine(await loadModel(join(root, golden.model)), { max_model_len: 160 }, async (engine) => {
    const prompt = golden.prompts[3]?.prompt as number[] // 150 tokens
    expect((await submit(engine, prompt)).tokens).toEqual(golden.prompts[3]?.greedy.slice(0, 10))
    const sampling = { max_tokens: 1 }
    const long = Int32Array.from(golden.prompts[4]?.prompt as number[])
    expect(() => engine.submit({ prompt: long, sampling })).toThrow('prompt: expected at most 159 tokens, got 300')
  })
})

test('what a decoder tells of its prompt an encoder does not', async () => {
  const { model } = readGolden('mt5')
  await withEngine(await loadModel(join(root, model)), {}, async (engine) => {
    const sampling = { max_tokens: 1, num_prompt_logprobs: 1 }
    expect(() => engine.submit({ prompt: Int32Array.of(7), sampling })).toThrow(
      'num_prompt_logprobs, pooling: expected none',
    )
  })
})

test.each<[string, Record<string, unknown>, string]>([
  [
    'an unknown activation',
    { feed_forward_proj: 'gated-mish' },
    'feed_forward_proj: expected relu, gated-gelu or another known activation',
  ],
  [
    'another number of buckets',
    { relative_attention_num_buckets: 32 },
    'relative_attention_bias.weight": expected shape [32,2], found [16,2]',
  ],
  [
    'more decoder blocks than are stored',
    { num_decoder_layers: 3 },
    'expected tensors that are not in it: decoder.block.2.layer',
  ],
  [
    'more encoder blocks than are stored',
    { num_layers: 4 },
    'expected tensors that are not in it: encoder.block.3.layer',
  ],
])('a config with %s is refused', async (_, change, message) => {
  const copy = copyOf('t5-v1.1')
  editJson(copy, 'config.json', (json) => Object.assign(json, change))
  await expect(loadModel(copy)).rejects.toThrow(message)
})
