// Normalized text → words, which the model encodes one by one.

import { toByteLevel } from './byte-table.js'
import type { PreTokenizerStep, SplitBehavior } from './definition.js'
import { oldPunctuation } from './old-unicode.js'
import { compilePattern } from './regex.js'

/** Takes one word; asked to stop, the splitter stops too. */
type Step = (words: Iterable<string>, atStart: boolean) => Iterable<string>

export interface PreTokenizer {
  /** @param atStart the text stands at the start of everything, which Metaspace's "first" asks for */
  split(text: string, atStart: boolean): Iterable<string>
  /** Words are text whose UTF-8 bytes the vocabulary is written in: the last step's own table is left to the model. */
  byteLevel: boolean
}

export function makePreTokenizer(steps: readonly PreTokenizerStep[]): PreTokenizer {
  const byteLevel = steps.at(-1)?.type === 'ByteLevel'
  const functions = steps.map((step, index) => makeStep(step, index === steps.length - 1))
  return {
    byteLevel,
    split: (text, atStart) => functions.reduce<Iterable<string>>((words, step) => step(words, atStart), [text]),
  }
}

function makeStep(step: PreTokenizerStep, last: boolean): Step {
  switch (step.type) {
    case 'ByteLevel': {
      const spaced = step.add_prefix_space
        ? eachWord((word) => [word.startsWith(' ') ? word : ` ${word}`])
        : (words: Iterable<string>) => words
      const split = step.use_regex ? eachWord(byteLevelWords) : (words: Iterable<string>) => words
      const map = last ? (words: Iterable<string>) => words : eachWord((word) => [toByteLevel(word)])
      return (words) => map(split(spaced(words)))
    }
    case 'Metaspace':
      return makeMetaspace(step)
    case 'Split':
      return makeSplit(compilePattern(step.pattern), step.behavior, step.invert)
    case 'Digits':
      return makeSplit(step.individual_digits ? /\p{N}/gu : /\p{N}+/gu, 'Isolated', false)
    case 'Punctuation':
      return makeSplit(oldPunctuation, step.behavior, false)
    case 'Whitespace':
      return makeSplit(
        /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]+|[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}\p{White_Space}]+/gu,
        'Removed',
        true,
      )
    case 'WhitespaceSplit':
      return makeSplit(/\p{White_Space}/gu, 'Removed', false)
  }
}

function eachWord(split: (word: string) => Iterable<string>): (words: Iterable<string>) => Iterable<string> {
  return function* (words) {
    for (const word of words) yield* split(word)
  }
}

function makeMetaspace(step: PreTokenizerStep & { type: 'Metaspace' }): Step {
  const { replacement, prepend_scheme } = step
  const split = eachWord((word) => splitBefore(word, replacement))
  return (words, atStart) => {
    const marked: Iterable<string> = (function* () {
      let first = atStart
      for (const word of words) {
        const replaced = word.replaceAll(' ', replacement)
        const prepend = prepend_scheme === 'always' || (prepend_scheme === 'first' && first)
        yield prepend && !replaced.startsWith(replacement) ? replacement + replaced : replaced
        first = false
      }
    })()
    return step.split ? split(marked) : marked
  }
}

/** Every mark begins a word. */
function* splitBefore(text: string, mark: string): Iterable<string> {
  let start = 0
  while (start < text.length) {
    const next = text.indexOf(mark, text.startsWith(mark, start) ? start + mark.length : start)
    const end = next < 0 ? text.length : next
    yield text.slice(start, end)
    start = end
  }
}

/** Splits at the pattern's matches. @param invert what lies between the matches counts as the matches */
function makeSplit(pattern: RegExp, behavior: SplitBehavior, invert: boolean): Step {
  return eachWord(function* (word) {
    // A piece waits until it is known what is merged with it.
    let waiting = ''
    let previous = false
    for (const [piece, found] of matches(word, pattern)) {
      const match = found !== invert
      switch (behavior) {
        case 'Removed':
          if (!match) yield piece
          break
        case 'Isolated':
          yield piece
          break
        case 'Contiguous':
          if (match === previous) {
            waiting += piece
          } else {
            if (waiting !== '') yield waiting
            waiting = piece
          }
          break
        case 'MergedWithPrevious':
          if (match && !previous) {
            waiting += piece
          } else {
            if (waiting !== '') yield waiting
            waiting = piece
          }
          break
        case 'MergedWithNext':
          if (match || !previous) {
            if (waiting !== '') yield waiting
            waiting = piece
          } else {
            waiting += piece
          }
          break
      }
      previous = match
    }
    if (waiting !== '') yield waiting
  })
}

/** All of a text in pieces that match and pieces that do not. */
function* matches(text: string, pattern: RegExp): Iterable<[piece: string, match: boolean]> {
  let end = 0
  for (const match of text.matchAll(pattern)) {
    if (match.index > end) yield [text.slice(end, match.index), false]
    if (match[0] !== '') yield [match[0], true]
    end = match.index + match[0].length
  }
  if (end < text.length) yield [text.slice(end), false]
}

// ---- GPT-2's pattern by hand, because half of the models use it and its words are short:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+

const LETTER = 1
const NUMBER = 2
const SPACE = 3
const OTHER = 4

/** Kinds of the characters of the basic plane, filled as they are met; 0: not met yet. */
const kinds = new Uint8Array(0x10000)

function findKind(char: string): number {
  if (/^\p{L}/u.test(char)) return LETTER
  if (/^\p{N}/u.test(char)) return NUMBER
  return /^\p{White_Space}/u.test(char) ? SPACE : OTHER
}

function kindAt(text: string, at: number): number {
  const unit = text.charCodeAt(at)
  if ((unit & 0xfc00) === 0xd800) return findKind(String.fromCodePoint(text.codePointAt(at) ?? 0))
  let kind = kinds[unit] ?? 0
  if (kind === 0) {
    kind = findKind(String.fromCharCode(unit))
    kinds[unit] = kind
  }
  return kind
}

/** Where the run of one kind that holds the character at `at` ends. */
function runEnd(text: string, at: number, kind: number): number {
  let end = at
  while (end < text.length && kindAt(text, end) === kind) end += (text.charCodeAt(end) & 0xfc00) === 0xd800 ? 2 : 1
  return end
}

function* byteLevelWords(text: string): Iterable<string> {
  let at = 0
  while (at < text.length) {
    const end = wordEnd(text, at)
    yield text.slice(at, end)
    at = end
  }
}

function wordEnd(text: string, at: number): number {
  if (text.charCodeAt(at) === 0x27) {
    const two = text.slice(at + 1, at + 3)
    if (two === 're' || two === 've' || two === 'll') return at + 3
    if ('stmd'.includes(two[0] ?? '-')) return at + 2
  }
  const kind = kindAt(text, at)
  if (kind !== SPACE) return runEnd(text, at, kind)
  if (text.charCodeAt(at) === 0x20 && at + 1 < text.length) {
    const next = kindAt(text, at + 1)
    if (next !== SPACE) return runEnd(text, at + 1, next)
  }
  // White space leaves its last character to the word after it, unless it is all there is. (All of it is in the basic plane.)
  const end = runEnd(text, at, SPACE)
  return end === text.length || end === at + 1 ? end : end - 1
}
