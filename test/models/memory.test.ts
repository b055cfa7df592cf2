// What the memory of a model is said to be before it is loaded, against what the engine then holds.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { planMemory, type StartOptions, startEngine } from '../../src/engine/addon.js'
import type { DType } from '../../src/engine/contract.js'
import type { Engine } from '../../src/engine/engine.js'
import { architectureOf } from '../../src/models/architectures.js'
import { readCheckpoint } from '../../src/models/checkpoint.js'
import { Fields } from '../../src/models/fields.js'
import { requireJson } from '../../src/models/folder.js'
import { parseHubId } from '../../src/models/hub-id.js'
import { knownCheckpoints } from '../../src/models/known-checkpoints.js'
import { modelMemory } from '../../src/models/memory.js'
import { outlineOf, readOutline } from '../../src/models/outline.js'
import { findSources } from '../../src/models/sources.js'

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url))
const folders = [
  ...readdirSync(here('../fixtures/families')).map((name) => here(`../fixtures/families/${name}`)),
  ...readdirSync(here('../fixtures'))
    .filter((name) => /^(neox|t5|mt5)/.test(name))
    .map((name) => here(`../fixtures/${name}`)),
  here('../../models/tales'),
]

async function load(folder: string) {
  const config = await requireJson(join(folder, 'config.json'), 'a config')
  const { row } = architectureOf(config)
  const spec = row.spec(config)
  return findSources(row, config, { ...spec, num_sampled_ids: spec.vocab_size }, await readCheckpoint(folder))
}

/** A request that fills steps, chooses from the whole vocabulary and, of a decoder, has its prompt scored. */
async function work(engine: Engine, seed: number, scored: boolean): Promise<void> {
  const length = Math.min(150, engine.info.max_model_len / 2)
  const prompt = Int32Array.from({ length }, (_, i) => (seed * (i + 3) * 7) % 90)
  const sampling = { max_tokens: 3, temperature: 1, seed, num_logprobs: 2, ignore_eos: true }
  const request = { prompt, sampling: scored ? { ...sampling, num_prompt_logprobs: 2 } : sampling }
  for await (const _ of engine.submit(request));
}

describe.each(folders)('%s', (folder) => {
  test.each<[DType, Partial<StartOptions>]>([
    ['float16', {}],
    ['float32', { max_num_batched_tokens: 33, max_num_seqs: 40, num_threads: 2, kv_cache_bytes: 1 << 19 }],
  ])('%s: the engine holds what its config foretells', async (dtype, changed) => {
    const options = { dtype, num_threads: 1, max_model_len: 304, kv_cache_bytes: 1 << 22, ...changed }
    const outline = await readOutline(folder)
    const memory = modelMemory(outline, options)
    const engine = await startEngine(await load(folder), options)
    try {
      const { num_parameters, weight_bytes, kv_cache_bytes, workspace_bytes, num_pages, max_model_len } = engine.info
      expect(outline.num_parameters).toBe(num_parameters)
      expect(memory).toMatchObject({ weight_bytes, kv_cache_bytes, workspace_bytes, num_pages, max_model_len })
      await Promise.all([1, 2, 3].map((seed) => work(engine, seed, outline.spec.num_encoder_layers === 0)))
      expect(engine.stats().scratch_bytes).toBe(memory.scratch_bytes)
    } finally {
      await engine.close()
    }
  })
})

test('a KV cache that is too small for one page, or for a prompt and its completion, is refused', async () => {
  const options = { max_model_len: 64, kv_cache_bytes: 100 }
  const { spec } = await readOutline(here('../fixtures/t5-v1.0'))
  expect(() => planMemory(spec, options)).toThrow(/expected room for one page of \d+ bytes/)
  const { page_bytes } = planMemory(spec, { ...options, kv_cache_bytes: 1 << 20 })
  expect(() => planMemory(spec, { ...options, kv_cache_bytes: 2 * page_bytes })).toThrow(
    'KV cache of 2 pages: expected at least 3 for a model with an encoder',
  )
})

test('the known checkpoints have as many parameters as transformers counts', () => {
  const counts: Record<string, number> = JSON.parse(readFileSync(here('goldens/parameters.json'), 'utf8'))
  const own = knownCheckpoints.map(({ id, config }) => [id, outlineOf(new Fields(id, config)).num_parameters])
  expect(Object.fromEntries(own)).toEqual(counts)
  expect(own).toHaveLength(Object.keys(counts).length) // no id twice
  expect(own.every(([id]) => parseHubId(String(id)) !== null)).toBe(true)
})
