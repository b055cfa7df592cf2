import { describe, expect, test } from 'vitest'
import { StopMatcher } from '../../src/generation/stops.js'
import { seededRandom } from './fake_model.js'

/** The rule, written without any cleverness: the first place where some stop string ends; the longest that ends there. */
function expected(text: string, stops: string[]): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const lengths = stops.filter((stop) => text.slice(0, end).endsWith(stop)).map((stop) => stop.length)
    if (lengths.length > 0) return { text: text.slice(0, end - Math.max(...lengths)), stopped: true }
  }
  return { text, stopped: false }
}

function run(pieces: string[], stops: string[]): { text: string; stopped: boolean; given: string[] } {
  const matcher = new StopMatcher(stops)
  const given: string[] = []
  for (const piece of pieces) {
    const { text, stopped } = matcher.push(piece)
    given.push(text)
    if (stopped) return { text: given.join(''), stopped, given }
  }
  given.push(matcher.end())
  return { text: given.join(''), stopped: false, given }
}

describe('a stop string', () => {
  const cases: [string, string[], string, boolean][] = [
    ['Hello END there', ['END'], 'Hello ', true],
    ['Hello EN there', ['END'], 'Hello EN there', false],
    ['ends with EN', ['END'], 'ends with EN', false],
    ['aabaabaaa', ['aabaaa'], 'aab', true],
    ['abcd', ['abcd', 'c'], 'ab', true],
    ['xabcd', ['bcd', 'abcd', 'cd'], 'x', true],
    ['one\n\ntwo', ['\n\n', '\n'], 'one', true],
    ['a😀b', ['😀'], 'a', true],
    ['END', ['END'], '', true],
    ['anything', [], 'anything', false],
  ]
  for (const [text, stops, kept, stopped] of cases) {
    test(`${JSON.stringify(stops)} in ${JSON.stringify(text)}, split anywhere`, () => {
      expect(expected(text, stops)).toEqual({ text: kept, stopped })
      for (let i = 0; i <= text.length; i++) {
        for (let j = i; j <= text.length; j++) {
          const { text: got, stopped: did } = run([text.slice(0, i), text.slice(i, j), text.slice(j)], stops)
          expect([got, did]).toEqual([kept, stopped])
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
    const result = run(pieces, stops)
    expect({ text: result.text, stopped: result.stopped }).toEqual(expected(text, stops))
    if (result.stopped) stoppedRuns++
  }
  // Both outcomes are common, or the test says little.
  expect(stoppedRuns).toBeGreaterThan(1000)
  expect(stoppedRuns).toBeLessThan(4500)
})

test('text that cannot belong to a stop string is given out at once', () => {
  const { given } = run(['Hi', ' E', 'N', ' E', 'ND', 'x'], ['END'])
  expect(given).toEqual(['Hi', ' ', '', 'EN ', ''])
})
