import { describe, expect, test } from 'vitest'
import { StopMatcher } from '../../src/generation/stops.js'
import { seededRandom } from './fake_model.js'

/** The rule, written without any cleverness: the first place where some stop string ends; the longest that ends there. */
function expected(text: string, stops: string[], include = false): { text: string; stopped: string | null } {
  for (let end = 1; end <= text.length; end++) {
    const found = stops.filter((stop) => text.slice(0, end).endsWith(stop)).sort((a, b) => b.length - a.length)[0]
    if (found !== undefined) return { text: text.slice(0, include ? end : end - found.length), stopped: found }
  }
  return { text, stopped: null }
}

function run(pieces: string[], stops: string[], include = false) {
  const matcher = new StopMatcher(stops, include)
  const given: string[] = []
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece)
    given.push(text)
    if (stopped !== null) return { text: given.join(''), stopped, given }
  }
  given.push(matcher.end())
  return { text: given.join(''), stopped: null, given }
}

describe('a stop string', () => {
  const cases: [string, string[], string, string | null][] = [
    ['Hello END there', ['END'], 'Hello ', 'END'],
    ['Hello EN there', ['END'], 'Hello EN there', null],
    ['ends with EN', ['END'], 'ends with EN', null],
    ['aabaabaaa', ['aabaaa'], 'aab', 'aabaaa'],
    ['abcd', ['abcd', 'c'], 'ab', 'c'],
    ['xabcd', ['bcd', 'abcd', 'cd'], 'x', 'abcd'],
    ['one\n\ntwo', ['\n\n', '\n'], 'one', '\n'],
    ['a😀b', ['😀'], 'a', '😀'],
    ['END', ['END'], '', 'END'],
    ['anything', [], 'anything', null],
  ]
  for (const [text, stops, kept, stopped] of cases) {
    test(`${JSON.stringify(stops)} in ${JSON.stringify(text)}, split anywhere`, () => {
      expect(expected(text, stops)).toEqual({ text: kept, stopped })
      for (let i = 0; i <= text.length; i++) {
        for (let j = i; j <= text.length; j++) {
          const pieces = [text.slice(0, i), text.slice(i, j), text.slice(j)]
          const { text: got, stopped: did } = run(pieces, stops)
          expect([got, did]).toEqual([kept, stopped])
          expect(run(pieces, stops, true).text).toBe(kept + (stopped ?? ''))
        }
      }
    })
  }
})

test('random texts, random stop strings, random splits follow the rule', () => {
  const random = seededRandom(7)
  const letters = (max: number, min = 0) =>
    Array.from({ length: min + Math.floor(random() * (max - min + 1)) }, () => 'abc'[Math.floor(random() * 2.3)]).join(
      '',
    )
  let stoppedRuns = 0
  for (let round = 0; round < 5000; round++) {
    const text = letters(14)
    const stops = Array.from({ length: 1 + Math.floor(random() * 3) }, () => letters(5, 1))
    const pieces: string[] = []
    for (let at = 0; at < text.length; ) {
      const end = at + Math.floor(random() * 4)
      pieces.push(text.slice(at, end))
      at = end
    }
    const include = round % 2 === 0
    const result = run(pieces, stops, include)
    expect({ text: result.text, stopped: result.stopped }).toEqual(expected(text, stops, include))
    if (result.stopped !== null) stoppedRuns++
  }
  // Both outcomes are common, or the test says little.
  expect(stoppedRuns).toBeGreaterThan(1000)
  expect(stoppedRuns).toBeLessThan(4500)
})

test('text that cannot belong to a stop string is given out at once', () => {
  const { given } = run(['Hi', ' E', 'N', ' E', 'ND', 'x'], ['END'])
  expect(given).toEqual(['Hi', ' ', '', 'EN ', ''])
})
