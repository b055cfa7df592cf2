import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { startEngine } from '../../src/engine/addon.js'
import type { TokenEvent } from '../../src/engine/engine.js'
import { type BeamSearchOptions, beamSearch, beamTokens } from '../../src/generation/beam_search.js'
import { searchBeams } from '../../src/generation/beams.js'
import { loadModel } from '../../src/models/load.js'

interface Search extends Omit<BeamSearchOptions, 'ends'> {
  model: string
  prompt: number[]
  ends: number[]
  tokens: number[][]
  scores: number[]
}

const root = fileURLToPath(new URL('../..', import.meta.url))
const goldens: { searches: Search[] } = JSON.parse(
  readFileSync(fileURLToPath(new URL('beam_goldens.json', import.meta.url)), 'utf8'),
)
const models = [...new Set(goldens.searches.map(({ model }) => model))]

describe.each(models)('on %s', async (path) => {
  const model = await loadModel(join(root, path))
  const searches = goldens.searches.filter((search) => search.model === path)

  test("every search of transformers' finds the same beams with the same scores", async () => {
    const engine = await startEngine(model, {
      dtype: 'float32',
      num_threads: 1,
      max_model_len: 64,
      kv_cache_bytes: 1 << 24,
    })
    try {
      for (const search of searches) {
        const options = { ...search, ends: new Set(search.ends) }
        const request = { prompt: Int32Array.from(search.prompt), sampling: { max_tokens: search.max_tokens } }
        const found = await searchBeams(
          engine,
          request,
          options,
          model.spec.num_sampled_ids,
          new AbortController().signal,
        )
        const what = JSON.stringify({ ...search, tokens: 0, scores: 0 })
        expect(
          found.map((events) => events.map(({ token }) => token)),
          what,
        ).toEqual(search.tokens)
        for (const [i, events] of found.entries()) {
          const sum = events.reduce((total, { logprob }) => total + logprob, 0)
          const score = sum / events.length ** search.length_penalty
          expect(Math.abs(score - (search.scores[i] ?? 0)), what).toBeLessThan(1e-4 * Math.max(1, Math.abs(score)))
          const last = events.at(-1) as TokenEvent
          expect(last.finish).toBe(search.ends.includes(last.token) ? 'stop' : 'length')
        }
      }
    } finally {
      await engine.close()
    }
  })
})

test('the goldens are worth comparing with: each option changes what is found', () => {
  const all = goldens.searches.flatMap(({ tokens }) => tokens)
  expect(all.some((tokens) => tokens.length < 20)).toBe(true)
  expect(all.some((tokens) => tokens.length === 20)).toBe(true)
  for (const option of ['num_beams', 'length_penalty', 'early_stopping'] as const) {
    const found = new Map<string, Set<string>>()
    for (const search of goldens.searches) {
      const rest = JSON.stringify({ ...search, [option]: 0, tokens: 0, scores: 0 })
      found.set(rest, (found.get(rest) ?? new Set()).add(String(search.tokens.slice(0, 2))))
    }
    expect(Math.max(...[...found.values()].map(({ size }) => size)), option).toBeGreaterThan(1)
  }
})

/** A model of two tokens besides the end: log-probabilities by what was generated. */
const tiny = (table: Record<string, [number, number][]>) => async (beams: readonly (readonly number[])[]) =>
  beams.map((tokens) => (table[tokens.join()] ?? []).map(([token, p]) => ({ token, logprob: Math.log(p) })))

const defaults: BeamSearchOptions = {
  num_beams: 2,
  max_tokens: 2,
  length_penalty: 1,
  early_stopping: false,
  ends: new Set([9]),
}

test('a beam that begins worse may end better', async () => {
  const model = tiny({
    '': [
      [1, 0.6],
      [2, 0.4],
    ],
    '1': [
      [1, 0.5],
      [2, 0.5],
    ],
    '2': [
      [1, 0.9],
      [2, 0.1],
    ],
  })
  const [best, second] = await beamSearch(model, defaults)
  expect(beamTokens(best?.last ?? null).map(({ token }) => token)).toEqual([2, 1])
  expect(best?.logprob).toBeCloseTo(Math.log(0.36), 6)
  expect(beamTokens(second?.last ?? null).map(({ token }) => token)).toEqual([1, 1])
})

test('an end counts only among the best num_beams, and a beam goes on in its place', async () => {
  const model = tiny({
    '': [
      [9, 0.5],
      [1, 0.3],
      [2, 0.15],
    ],
    '1': [[9, 1]],
    '2': [[9, 1]],
  })
  const found = await beamSearch(model, { ...defaults, length_penalty: 0, max_tokens: 3 })
  expect(found.map(({ last, finish }) => [beamTokens(last).map(({ token }) => token), finish])).toEqual([
    [[9], 'stop'],
    [[1, 9], 'stop'],
  ])
})

test('asks for one continuation of each running beam, and stops asking when nothing goes on', async () => {
  const asked: string[][] = []
  const model = tiny({ '': [[9, 1]] })
  const found = await beamSearch(
    (beams) => {
      asked.push(beams.map((tokens) => tokens.join()))
      return model(beams)
    },
    { ...defaults, max_tokens: 10 },
  )
  expect(asked).toEqual([['']])
  expect(found).toHaveLength(1)
})
