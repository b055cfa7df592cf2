import { expect, test } from 'vitest'
import { selectBest } from '../../src/generation/best_of.js'
import type { Delta } from '../../src/generation/request.js'

const delta = (index: number, text: string, logprob: number, last = false): Delta => ({
  index,
  text,
  tokens: [],
  token_ids: [0],
  logprob,
  finish_reason: last ? 'stop' : null,
  stop_reason: null,
})

async function* given(deltas: Delta[]): AsyncGenerator<Delta> {
  yield* deltas
}

async function select(deltas: Delta[], bestOf: number, n: number): Promise<string[]> {
  const texts: string[] = []
  for await (const { index, text } of selectBest(given(deltas), bestOf, n)) texts[index] = (texts[index] ?? '') + text
  return texts
}

test('the most probable per token come first, whichever order they were made in', async () => {
  const deltas = [
    delta(2, 'c', -1),
    delta(0, 'a', -3, true),
    delta(1, 'b', -0.5),
    delta(2, 'c', -1, true), // two tokens, -2 together, -1 each
    delta(1, 'b', -4, true), // -4.5 together, -2.25 each
  ]
  expect(await select(deltas, 3, 1)).toEqual(['cc'])
  expect(await select(deltas, 3, 2)).toEqual(['cc', 'bb'])
  expect(await select(deltas, 3, 3)).toEqual(['cc', 'bb', 'a'])
})

test('each prompt has its own best, and the indices are those of n completions', async () => {
  const deltas = [delta(0, 'a', -2, true), delta(1, 'b', -1, true), delta(2, 'c', -1, true), delta(3, 'd', -2, true)]
  expect(await select(deltas, 2, 1)).toEqual(['b', 'c'])
  expect(await select(deltas, 2, 2)).toEqual(['b', 'a', 'c', 'd'])
})

test('the tokens of what is not given out are counted once, on the first delta of the prompt', async () => {
  const deltas = [
    delta(0, 'a', -3),
    delta(0, 'a', -3, true),
    delta(1, 'b', -1, true),
    delta(2, 'c', -1),
    delta(2, 'c', -0.5, true),
  ]
  const discarded: (number | undefined)[] = []
  for await (const { discarded_tokens } of selectBest(given(deltas), 3, 1)) discarded.push(discarded_tokens)
  expect(discarded).toEqual([3, undefined])
})

test('of equals the earlier one comes first', async () => {
  expect(await select([delta(1, 'b', -1, true), delta(0, 'a', -1, true)], 2, 1)).toEqual(['a'])
})
