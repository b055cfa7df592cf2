import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { readTokenizer } from '../../src/models/tokenizer/folder.js'
import { makeNormalizer } from '../../src/models/tokenizer/normalizer.js'

const { normalizer } = await readTokenizer(fileURLToPath(new URL('../fixtures/tokenizers/t5', import.meta.url)))
/** The fixture's table replaces e + U+0301 by é, 1100 1161 by a syllable, U+00BD, line ends and others. */
const normalize = makeNormalizer(normalizer.filter(({ type }) => type === 'Precompiled'))

test('graphemes are found wherever the windows of a long text end', () => {
  const parts: [string, string][] = [
    ['e\u0301', 'é'],
    ['e\u0301\u0323\u0316', 'e\u0301\u0323\u0316'],
    ['\u1100\u1161', '\u1100\u1161'],
    ['\u00bd', '1⁄2'],
    ['\r\n', ' '],
    ['👩🏾\u200d🚀', '👩🏾\u200d🚀'],
    [`e${'\u0301'.repeat(1000)}`, `e${'\u0301'.repeat(1000)}`],
    ['🇩🇪🇫🇷', '🇩🇪🇫🇷'],
  ]
  const hard = parts.map(([text]) => text).join('ก')
  const expected = parts.map(([, text]) => text).join('ก')
  for (let length = 1; length < 300; length++) {
    const pad = 'ก'.repeat(length)
    expect(normalize(pad + hard + pad)).toBe(pad + expected + pad)
  }
})
