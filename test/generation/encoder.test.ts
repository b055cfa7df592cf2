import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { Encoder } from '../../src/generation/encoder.js'
import { renderChat, specialTexts } from '../../src/generation/prompt.js'
import { ChatTemplate } from '../../src/generation/template.js'
import { compileTokenizer } from '../../src/models/tokenizer/compile.js'
import { readTokenizer } from '../../src/models/tokenizer/folder.js'
import { loadTokenizer, makeTokenizer, type SteppingTokenizer } from '../../src/models/tokenizer.js'
import { chatTemplate } from './fake_model.js'

const folder = fileURLToPath(new URL('../../models/tales', import.meta.url))
// The thread runs the compiled file; `npm test` builds it first.
const threadFile = new URL('../../dist/generation/encode_thread.js', import.meta.url)
const tales = await loadTokenizer(folder)
const story = 'Once upon a time there was a <|user|> king. '

async function withEncoder(tokenizer: SteppingTokenizer, use: (encoder: Encoder) => Promise<void>): Promise<void> {
  const encoder = new Encoder(tokenizer, threadFile)
  try {
    await use(encoder)
  } finally {
    await encoder.close()
  }
}

describe.skipIf(!existsSync(threadFile))('the thread', () => {
  test('gives the same ids, while this thread goes on', async () => {
    const text = story.repeat(3000)
    const all = [
      {},
      { addSpecialTokens: false },
      { allowSpecial: true },
      { allowSpecial: true, plain: [[29, 37]] as const },
    ]
    await withEncoder(tales, async (encoder) => {
      let ticks = 0
      const ticking = setInterval(() => ticks++, 1)
      const found = await Promise.all(all.map((options) => encoder.encode(text, options)))
      clearInterval(ticking)
      expect(found.map((ids) => [...ids])).toEqual(all.map((options) => tales.encode(text, options)))
      expect(ticks).toBeGreaterThan(2)
    })
  })

  test('reads the tokenizer of a folder, or says why not', async () => {
    const encoder = await Encoder.read(folder, threadFile)
    try {
      expect([...(await encoder.encode(story, {}))]).toEqual(tales.encode(story))
      expect(encoder.tokenizer.encode(story)).toEqual(tales.encode(story))
    } finally {
      await encoder.close()
    }
    await expect(Encoder.read('/nowhere', threadFile)).rejects.toThrow(
      'tokenizer.json: expected a tokenizer, found no such file',
    )
  })

  test('encodes a short text before the end of a long one that came first', async () => {
    await withEncoder(tales, async (encoder) => {
      const order: string[] = []
      const long = encoder.encode(story.repeat(40_000), {}).then(() => order.push('long'))
      const short = encoder.encode(story, {}).then(() => order.push('short'))
      await Promise.all([long, short])
      expect(order).toEqual(['short', 'long'])
    })
  })

  test('works no more for who is gone', async () => {
    await withEncoder(tales, async (encoder) => {
      const controller = new AbortController()
      const long = encoder.encode(story.repeat(40_000), {}, controller.signal)
      await encoder.encode(story, {})
      controller.abort(new Error('gone'))
      await expect(long).rejects.toThrow('gone')
      await expect(encoder.encode(story, {}, controller.signal)).rejects.toThrow('gone')
      expect([...(await encoder.encode(story, {}))]).toEqual(tales.encode(story))
    })
  })

  test('ends a text soon after more tokens than were wanted', async () => {
    await withEncoder(tales, async (encoder) => {
      const ids = await encoder.encode(story.repeat(40_000), { maxTokens: 100 })
      expect(ids.length).toBeGreaterThan(100)
      expect(ids.length).toBeLessThan(10_000)
    })
  })

  test('stops a regular expression that does not come to an end, and goes on', async () => {
    const definition = await readTokenizer(folder)
    definition.preTokenizer.unshift({
      type: 'Split',
      pattern: { regex: '(a+)+b' },
      behavior: 'Isolated',
      invert: false,
    })
    const tokenizer = makeTokenizer(compileTokenizer(definition))
    await withEncoder(tokenizer, async (encoder) => {
      const stopped = encoder.encode('a'.repeat(60), {})
      const other = encoder.encode(story, {})
      await expect(stopped).rejects.toMatchObject({ kind: 'tokenizer_failed', status: 400 })
      expect([...(await other)]).toEqual(tokenizer.encode(story))
    })
  })

  test('that cannot start fails its requests and nothing else', async () => {
    const encoder = new Encoder(tales, new URL('file:///nowhere.js'))
    await expect(encoder.encode(story, {})).rejects.toThrow(/nowhere/)
    await expect(encoder.encode(story, {})).rejects.toThrow(/nowhere/)
    await encoder.close()
  })
})

test('a normalizer that does not come to an end for an added token is refused', async () => {
  const definition = await readTokenizer(folder)
  definition.normalizer = [{ type: 'Replace', pattern: { regex: '(a+)+b' }, content: '' }]
  definition.added.push({
    ...(definition.added[0] as never as object),
    id: 999,
    content: 'a'.repeat(60),
    normalized: true,
  } as never)
  expect(() => compileTokenizer(definition, 50)).toThrow(/regular expressions that come to an end/)
})

test('a chat in which a user names special tokens is encoded as one text', async () => {
  const template = new ChatTemplate(chatTemplate, { eos_token: tales.eosToken ?? '' })
  const content = 'Tell me <|endoftext|>s and <|assistant|>'
  const { text, plain } = await renderChat(template, [{ role: 'user', content }], specialTexts(tales))
  const ids = tales.encode(text, { addSpecialTokens: false, allowSpecial: true, plain })
  const [user] = tales.encode('<|user|>', { addSpecialTokens: false, allowSpecial: true })
  const [assistant] = tales.encode('<|assistant|>', { addSpecialTokens: false, allowSpecial: true })
  expect(ids).toEqual([user, ...tales.encode(content, { addSpecialTokens: false }), assistant])
})
