// Text → the text that the model was trained on.

import { toByteLevel } from './byte-table.js'
import { makeCharsmap } from './charsmap.js'
import type { NormalizerStep } from './definition.js'
import { normalizeOld } from './old-unicode.js'
import { compilePattern } from './regex.js'

/** All steps in one function. */
export function makeNormalizer(steps: readonly NormalizerStep[]): (text: string) => string {
  const functions = steps.map(makeStep)
  return (text) => functions.reduce((normalized, step) => step(normalized), text)
}

function makeStep(step: NormalizerStep): (text: string) => string {
  switch (step.type) {
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD': {
      const form = step.type
      return (text) => normalizeOld(text, form)
    }
    case 'Lowercase':
      // One by one: a final sigma is not looked for.
      return (text) => text.replace(/\p{Changes_When_Lowercased}/gu, (char) => char.toLowerCase())
    case 'ByteLevel':
      return toByteLevel
    case 'Prepend':
      return (text) => (text === '' ? '' : step.text + text)
    case 'Replace': {
      const { content } = step
      if ('text' in step.pattern) {
        const { text: from } = step.pattern
        return (text) => text.replaceAll(from, () => content)
      }
      const pattern = compilePattern(step.pattern)
      return (text) => text.replace(pattern, () => content)
    }
    case 'Strip':
      return (text) => {
        const left = step.left ? text.replace(/^\p{White_Space}+/u, '') : text
        return step.right ? trimEnd(left) : left
      }
    case 'Precompiled':
      return makeCharsmap(step.charsmap)
  }
}

/** Without the white space at its end. (A regular expression would try every run of spaces inside.) */
function trimEnd(text: string): string {
  let end = text.length
  while (end > 0 && /^\p{White_Space}$/u.test(text[end - 1] as string)) end--
  return text.slice(0, end)
}
