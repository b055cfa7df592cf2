// Every model family through native/cuda against transformers. The library that computes is the emulated one, or a GPU's where
// PARLEY_CUDA_LIBRARY names it. Short prompts, and all those of a few families; with PARLEY_TEST_ALL=1 all of every family, in several ways.

import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { forwardLogits, type ModelSource, planMemory, type StartOptions, startEngine } from '../../src/engine/addon.js'
import { loadModel } from '../../src/models/load.js'
import { loadUntokenized } from '../models/untokenized.js'

interface Golden {
  rounding: Record<'float16' | 'bfloat16', { max: number; rms: number }>
  vocab_size: number
  /** of an encoder-decoder: its encoder reads the prompt, its decoder this and the greedy tokens */
  decoder_start_token?: number
  /** the shortest first */
  prompts: { prompt: number[]; greedy: number[]; positions: number[] }[]
}

interface Family {
  name: string
  golden: Golden
  /** little-endian float32, a row of vocab_size for every position of every prompt */
  logits: Buffer
  load: () => Promise<ModelSource>
}

/** All that lie in a folder of goldens; `load` gets the fixture of each. */
function familiesIn(goldens: string, fixtures: string, load: (folder: string) => Promise<ModelSource>): Family[] {
  const at = (...path: string[]) => fileURLToPath(new URL(join('..', ...path), import.meta.url))
  const files = readdirSync(at(goldens)).filter((file) => file.endsWith('.json'))
  return files.toSorted().map((file) => {
    const name = basename(file, '.json')
    const golden: Golden = JSON.parse(readFileSync(at(goldens, file), 'utf8'))
    const logits = readFileSync(at(goldens, `${name}.bin`))
    return { name, golden, logits, load: () => load(at(fixtures, name)) }
  })
}

const families = [
  ...familiesIn('models/goldens/families', 'fixtures/families', loadUntokenized),
  ...familiesIn('models/goldens-t5', 'fixtures', loadModel), // whose greedy tokens are those that the tokenizer has
]
const all = Boolean(process.env.PARLEY_TEST_ALL)

const named = (...names: string[]) =>
  names.map((wanted) => {
    const family = families.find(({ name }) => name === wanted)
    if (family === undefined) throw new Error(`no golden is called ${wanted}`)
    return family
  })

/** A window, and an encoder: their long prompts need several chunks and several splits of keys. */
const withLongPrompts = all ? families : named('mistral-short-window', 't5-v1.1-resaved')
const decoded = all ? families : named('llama-plain', 't5-v1.1-resaved')

/** Row by row is what decoding does; at once, products may be those of cuBLASLt. */
const ways: [string, Partial<StartOptions>][] = [
  ['chunks of 64', { max_num_batched_tokens: 64 }],
  ['row by row', { max_num_batched_tokens: 1 }],
  ['at once, not deterministic', { max_num_batched_tokens: 512, deterministic: false }],
]

function optionsOf({ golden }: Family, changed: Partial<StartOptions>): StartOptions {
  const lengths = golden.prompts.map(({ prompt, greedy }) => prompt.length + greedy.length + 1)
  const sizes = { max_model_len: Math.max(...lengths), max_num_batched_tokens: 64, kv_cache_bytes: 1 << 22 }
  return { device: 'cuda', num_threads: 1, ...sizes, ...changed }
}

/** The difference of the engine's logits from those of the first prompts. */
function difference({ golden, logits }: Family, source: ModelSource, options: StartOptions, numPrompts: number) {
  const { vocab_size, decoder_start_token: start } = golden
  let [max, squares, count] = [0, 0, 0]
  for (const { prompt, greedy, positions } of golden.prompts.slice(0, numPrompts)) {
    const found =
      start === undefined
        ? forwardLogits(source, options, Int32Array.of(...prompt, ...greedy))
        : forwardLogits(source, options, Int32Array.of(start, ...greedy), Int32Array.from(prompt))
    for (const position of positions) {
      for (let id = 0; id < vocab_size; id++, count++) {
        const error = Math.abs((found[position * vocab_size + id] ?? Number.NaN) - logits.readFloatLE(4 * count))
        if (!(error <= max)) max = error // also keeps NaN
        squares += error ** 2
      }
    }
  }
  return { max, rms: Math.sqrt(squares / count) }
}

describe.each(all ? ways : ways.slice(0, 1))('%s', (_, way) => {
  test.each(families)('$name: logits', async (family) => {
    const { prompts, decoder_start_token, rounding } = family.golden
    const few = decoder_start_token === undefined ? 1 : 2 // an encoder of one token has nothing to attend to
    const numPrompts = withLongPrompts.includes(family) ? prompts.length : few
    const source = await family.load()
    const of = (dtype: 'float32' | 'float16' | 'bfloat16') =>
      difference(family, source, optionsOf(family, { ...way, dtype }), numPrompts)
    expect(of('float32').max).toBeLessThan(2e-4)
    // The largest error is one logit's, and more a matter of chance: 1.6 x for neox-sequential-linear, where rms is 1.1 x.
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const { max, rms } = of(dtype)
      expect(rms, dtype).toBeLessThan(1.5 * rounding[dtype].rms)
      expect(max, dtype).toBeLessThan(2 * rounding[dtype].max)
    }
  })
})

// Steps that only decode are recorded as graphs and replayed: what one recorded must serve the next, with other tokens and pages. Graphs are made
// beside the steps: the second time they are there.
test.each(decoded)('$name: greedy tokens of all prompts in one batch', async (family) => {
  const { prompts } = family.golden
  const engine = await startEngine(await family.load(), optionsOf(family, { dtype: 'float32' }))
  try {
    const answers = () =>
      Promise.all(
        prompts.map(async ({ prompt, greedy }) => {
          const sampling = { max_tokens: Math.min(greedy.length, 8), temperature: 0, ignore_eos: true }
          const tokens: number[] = []
          for await (const { token } of engine.submit({ prompt: Int32Array.from(prompt), sampling })) tokens.push(token)
          return tokens
        }),
      )
    const expected = prompts.map(({ greedy }) => greedy.slice(0, 8))
    expect(await answers()).toEqual(expected)
    expect(await answers()).toEqual(expected)
  } finally {
    await engine.close()
  }
})

test.each(named('mixtral-plain'))(
  'what the kernels have no room for is refused before a weight is loaded',
  async (family) => {
    const { spec } = await family.load()
    const options = optionsOf(family, {})
    expect(() => planMemory({ ...spec, num_experts: 385 }, options)).toThrow(
      'a mixture of 385 experts: on a GPU there can be 384',
    )
    expect(() => planMemory({ ...spec, head_dim: 320 }, options)).toThrow(
      'attention heads of 320 dims: on a GPU they can have 256',
    )
  },
)
