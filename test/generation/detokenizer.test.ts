import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { Detokenizer } from '../../src/generation/detokenizer.js'
import { loadTokenizer } from '../../src/models/tokenizer.js'
import { seededRandom } from './fake_model.js'

const bytes = (...parts: (string | number[])[]) =>
  Uint8Array.from(parts.flatMap((part) => [...Buffer.from(part as string)]))

const samples: Record<string, Uint8Array> = {
  'two, three and four bytes': bytes('aé€😀z'),
  'a family of joined emoji': bytes('👨‍👩‍👧‍👦!'),
  'a flag and a skin tone': bytes('🇳🇱👍🏽'),
  'a byte order mark at the start and inside': bytes('\ufeffab\ufeffc'),
  'U+FFFD that the model wrote': bytes('a\ufffdb'),
  'a lone continuation byte': bytes('a', [0x80], 'b'),
  'a cut character, then text': bytes([0xe2, 0x82], 'x'),
  'a cut character at the end': bytes('x', [0xf0, 0x9f, 0x98]),
  'overlong forms and surrogates': bytes([0xc0, 0xaf, 0xe0, 0x80, 0xaf, 0xed, 0xa0, 0x80], 'k'),
  'beyond U+10FFFF': bytes([0xf4, 0x90, 0x80, 0x80, 0xf8, 0xff]),
}

/** The pieces are the tokens. */
function of(pieces: Uint8Array[]): Detokenizer {
  const tokenBytes = (id: number) => pieces[id] ?? new Uint8Array()
  return new Detokenizer({ tokenBytes, firstTokenBytes: tokenBytes, isSpecial: () => false })
}

function stream(pieces: Uint8Array[]): string[] {
  const detokenizer = of(pieces)
  return [...pieces.map((_, id) => detokenizer.push(id)), detokenizer.end()]
}

function whole(all: Uint8Array): string {
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(all)
}

for (const [name, all] of Object.entries(samples)) {
  test(`every split of ${name} gives the text of the whole`, () => {
    const ends = [...all.keys(), all.length]
    for (const i of ends) {
      for (const j of ends.filter((end) => end >= i)) {
        const texts = stream([all.subarray(0, i), all.subarray(i, j), all.subarray(j)])
        expect(texts.join('')).toBe(whole(all))
        for (const text of texts) expect(text).not.toMatch(/\p{Surrogate}/u)
      }
    }
    expect(stream([...all].map((byte) => Uint8Array.of(byte))).join('')).toBe(whole(all))
  })
}

test('random bytes, split at random', () => {
  const random = seededRandom(1)
  const likely = [
    0x41, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xff, 0xc3, 0xa9, 0xed, 0xa0, 0xef, 0xbb, 0xbf, 0xf4, 0x90,
  ]
  for (let round = 0; round < 3000; round++) {
    const all = Uint8Array.from(
      { length: 1 + Math.floor(random() * 12) },
      () => likely[Math.floor(random() * likely.length)] ?? 0,
    )
    const pieces: Uint8Array[] = []
    for (let at = 0; at < all.length; ) {
      const end = at + Math.floor(random() * 4)
      pieces.push(all.subarray(at, end))
      at = end
    }
    expect(stream(pieces).join('')).toBe(whole(all))
  }
})

test('a character is given out as soon as it is complete, and not before', () => {
  const pieces = [...Buffer.from('😀é')].map((byte) => Uint8Array.of(byte))
  const detokenizer = of(pieces)
  const texts = pieces.map((_, id) => detokenizer.push(id))
  expect(texts).toEqual(['', '', '', '😀', '', 'é'])
})

test('SentencePiece’s space is left out where a text begins, and only there', () => {
  const tokens = [' a', '<s>', '', ' b'].map((text) => bytes(text))
  const tokenizer = {
    tokenBytes: (id: number) => tokens[id] ?? new Uint8Array(),
    firstTokenBytes: (id: number) => (tokens[id] ?? new Uint8Array()).subarray(1),
    isSpecial: (id: number) => id === 1,
  }
  const after = (prompt: number[], ...ids: number[]) => {
    const detokenizer = new Detokenizer(tokenizer, prompt)
    return ids.map((id) => detokenizer.push(id)).join('') + detokenizer.end()
  }
  expect(after([], 0, 3)).toBe('a b')
  expect(after([1, 2], 2, 0, 3)).toBe('a b')
  expect(after([1, 0], 3, 0)).toBe(' b a')
})

test.each(['gpt2', 'llama-first', 'llama-legacy', 'unigram-bytes', 't5', 'neox'])(
  'random tokens of %s: streamed text is the whole text, and never more than three bytes behind',
  async (name) => {
    const tokenizer = await loadTokenizer(fileURLToPath(new URL(`../fixtures/tokenizers/${name}`, import.meta.url)))
    const random = seededRandom(2)
    for (let round = 0; round < 300; round++) {
      const ids = Array.from({ length: 1 + Math.floor(random() * 12) }, () =>
        Math.floor(random() * (random() < 0.5 ? 260 : tokenizer.size)),
      )
      const detokenizer = new Detokenizer(tokenizer)
      let bytes = Buffer.alloc(0)
      let text = ''
      for (const id of ids) {
        const added = bytes.length === 0 ? tokenizer.firstTokenBytes(id) : tokenizer.tokenBytes(id)
        bytes = Buffer.concat([bytes, added])
        text += detokenizer.push(id)
        expect([0, 1, 2, 3].map((held) => whole(bytes.subarray(0, bytes.length - held)))).toContain(text)
      }
      expect(text + detokenizer.end()).toBe(whole(bytes))
    }
  },
)
