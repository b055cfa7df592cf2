import { expect, test } from 'vitest'
import type { PromptLogprobs } from '../../src/engine/engine.js'
import { showPrompt } from '../../src/generation/prompt_logprobs.js'
import { bytesOf, EOS, fakeTokenizer, USER, word } from './fake_model.js'

const tokenizer = fakeTokenizer()

/** Entry i of token i + 1: log-probability -i, rank i + 1, the token below it on top. */
function logprobs(ids: number[], numTop = 1): PromptLogprobs {
  const count = ids.length - 1
  return {
    logprobs: Float32Array.from({ length: count }, (_, i) => -i),
    ranks: Int32Array.from({ length: count }, (_, i) => i + 1),
    top_tokens: Int32Array.from({ length: count * numTop }, (_, i) => 97 + (i % 26)),
    top_logprobs: Float32Array.from({ length: count * numTop }, (_, i) => -i / 2),
  }
}

const show = (ids: number[], original: string | null, numTop = 1) =>
  showPrompt(tokenizer, Int32Array.from(ids), original, logprobs(ids, numTop))

test('the first token has no log-probability; the others have theirs, with as many alternatives as were asked for', () => {
  const ids = bytesOf('abc')
  const { text, tokens } = show(ids, null, 2)
  expect(text).toBe('abc')
  expect(tokens.map(({ id }) => id)).toEqual(ids)
  expect(tokens.map(({ logprob }) => logprob)).toEqual([null, -0, -1])
  expect(tokens.map(({ rank }) => rank)).toEqual([null, 1, 2])
  expect(tokens.map(({ top }) => top?.map(({ text, logprob }) => [text, logprob]) ?? null)).toEqual([
    null,
    [
      ['a', -0],
      ['b', -0.5],
    ],
    [
      ['c', -1],
      ['d', -1.5],
    ],
  ])
  expect(show(ids, null, 0).tokens[1]?.top).toEqual([])
  expect(show([97], null).tokens).toMatchObject([{ logprob: null, top: null, offset: 0 }])
})

test('log-probabilities are finite', () => {
  const ids = Int32Array.of(97, 98)
  const all = { ...logprobs([97, 98]), logprobs: Float32Array.of(Number.NEGATIVE_INFINITY) }
  expect(showPrompt(tokenizer, ids, null, all).tokens[1]?.logprob).toBe(-9999)
})

test('offsets count code points, and the bytes of one character share its start', () => {
  const ids = [word('😀'), ...bytesOf('é'), 0x7a, ...bytesOf('😀'), 0x7a]
  const { text, tokens } = show(ids, null)
  expect(text).toBe('😀éz😀z')
  expect(tokens.map(({ offset }) => offset)).toEqual([0, 1, 1, 2, 3, 3, 3, 3, 4])
})

test('the text is the one that was sent; special tokens around it take no place in it, those inside do', () => {
  const around = show([EOS, ...bytesOf('hi')], 'hi')
  expect(around.text).toBe('hi')
  expect(around.tokens.map(({ offset }) => offset)).toEqual([0, 0, 1])
  const inside = show([97, USER, 98], 'a<|user|>b')
  expect(inside.tokens.map(({ offset }) => offset)).toEqual([0, 1, 9])
  const decoded = show([97, USER, 98], null)
  expect(decoded.text).toBe('a<|user|>b')
  // A tokenizer that normalizes: the text stays as it came, and no offset lies behind its end.
  const normalized = show(bytesOf('e\u0301 \ufb01'), '\u00e9 fi')
  expect(normalized.text).toBe('\u00e9 fi')
  for (const { offset } of normalized.tokens) expect(offset).toBeLessThanOrEqual(4)
})

test('without log-probabilities there are no tokens; a character that is cut off becomes U+FFFD', () => {
  expect(showPrompt(tokenizer, Int32Array.of(97, 0xf0, 0x9f), null, undefined)).toEqual({ text: 'a\ufffd', tokens: [] })
})
