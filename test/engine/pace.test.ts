// The pace of prompts on a machine that takes exactly as long as is said here.

import { createRequire } from 'node:module'
import { describe, expect, test } from 'vitest'

interface Pace {
  saveUp(numDecodes: number, numBehind: number): number
  ran(numDecodes: number, numPromptTokens: number, ms: number): void
}
const { testPace } = createRequire(import.meta.url)('../../build/Release/parley.node') as { testPace(): Pace }

const maxBatchedTokens = 512

/** Reads a prompt beside some streams. @returns how long each of the steps took */
function read(pace: Pace, decodes: number, tokens: number, decodeMs: number, tokenMs: number, behind = 0): number[] {
  const steps: number[] = []
  for (let left = tokens; left > 0; ) {
    const slice = Math.min(left, maxBatchedTokens, pace.saveUp(decodes, behind))
    const ms = (decodes > 0 ? decodeMs : 0) + slice * tokenMs
    pace.ran(decodes, slice, ms)
    steps.push(ms)
    left -= slice
    if (steps.length > 1e5) throw new Error('the prompt is never read')
  }
  return steps
}

function decodeAlone(pace: Pace, decodes: number, steps: number, decodeMs: number): void {
  for (let i = 0; i < steps; i++) {
    pace.saveUp(decodes, 0)
    pace.ran(decodes, 0, decodeMs)
  }
}

const quantile = (values: number[], q: number) => values.toSorted((a, b) => a - b)[Math.floor(q * values.length)] ?? 0
const sum = (values: number[]) => values.reduce((total, value) => total + value, 0)

describe.each([
  ['few streams, a slow machine', 1, 100, 16],
  ['eight streams', 8, 250, 16],
  ['a token that takes longer than a step of decodes', 2, 100, 400],
  ['a fast machine', 16, 120, 1],
])('%s', (_name, decodes, decodeMs, tokenMs) => {
  const cheap = tokenMs < decodeMs / 3

  test('a long prompt leaves the gaps between tokens about what they are', () => {
    const pace = testPace()
    read(pace, 0, 100, decodeMs, tokenMs)
    decodeAlone(pace, decodes, 50, decodeMs)
    const steps = read(pace, decodes, 1500, decodeMs, tokenMs)
    const most = decodeMs * 1.9 + tokenMs
    expect(Math.max(...steps)).toBeLessThanOrEqual(most)
    if (cheap) expect(quantile(steps, 0.99) / quantile(steps, 0.5)).toBeLessThanOrEqual(1.5)
    // And it is read as fast as that allows.
    expect(sum(steps) / (steps.length * decodeMs)).toBeGreaterThan(1.3)
    expect(sum(steps) / (steps.length * decodeMs)).toBeLessThan(1.45)
  })

  test('what is not known at first is learned', () => {
    const pace = testPace()
    const steps = read(pace, decodes, 1500, decodeMs, tokenMs).slice(20)
    expect(Math.max(...steps)).toBeLessThanOrEqual(decodeMs * 1.9 + tokenMs)
  })

  test('where prompts pile up they are read faster', () => {
    const behind = (count: number) => {
      const pace = testPace()
      read(pace, 0, 100, decodeMs, tokenMs)
      decodeAlone(pace, decodes, 50, decodeMs)
      return sum(read(pace, decodes, 1500, decodeMs, tokenMs, count))
    }
    expect(behind(3)).toBeLessThan(0.6 * behind(0))
  })
})

test('a step that was held up for ten seconds does not hold up the prompt', () => {
  const pace = testPace()
  read(pace, 0, 100, 100, 10)
  decodeAlone(pace, 4, 50, 100)
  read(pace, 4, 100, 100, 10)
  pace.ran(4, pace.saveUp(4, 0), 10000)
  pace.ran(4, 0, 10000)
  const steps = read(pace, 4, 300, 100, 10)
  expect(steps.length).toBeLessThan(120) // without it: 86
  expect(Math.max(...steps)).toBeLessThan(200)
})

test('rows that cost nothing do not make the next slice large', () => {
  // A kernel that computes 32 rows in the time of one.
  const pace = testPace()
  const cost = (rows: number) => 100 + 80 * (Math.ceil(rows / 32) - 1)
  read(pace, 0, 512, 100, 2.5)
  decodeAlone(pace, 4, 50, 100)
  const steps: number[] = []
  for (let left = 4000; left > 0; ) {
    const slice = Math.min(left, maxBatchedTokens, pace.saveUp(4, 0))
    steps.push(cost(4 + slice))
    pace.ran(4, slice, cost(4 + slice))
    left -= slice
  }
  expect(Math.max(...steps)).toBeLessThanOrEqual(260)
  expect(sum(steps) / (steps.length * 100)).toBeLessThan(1.45)
})

test('a machine that becomes faster while a prompt is read is noticed', () => {
  const pace = testPace()
  read(pace, 0, 100, 500, 50)
  decodeAlone(pace, 4, 50, 500)
  read(pace, 4, 200, 500, 50)
  const steps = read(pace, 4, 1000, 100, 10).slice(100)
  expect(quantile(steps, 0.99) / 100).toBeLessThan(1.9)
})

test('where decodes are quick, a step that nobody notices reads what fits into it', () => {
  const pace = testPace()
  read(pace, 0, 100, 10, 0.5)
  decodeAlone(pace, 4, 50, 10)
  const steps = read(pace, 4, 1500, 10, 0.5)
  expect(Math.max(...steps)).toBeLessThanOrEqual(50)
  expect(steps.length).toBeLessThan(30) // with a share of a step of 10 ms: about 200
})

test('where nobody decodes there is no limit', () => {
  const pace = testPace()
  expect(pace.saveUp(0, 0)).toBeGreaterThan(2 ** 40)
  read(pace, 4, 1500, 10, 1)
  expect(pace.saveUp(0, 5)).toBeGreaterThan(2 ** 40)
})
