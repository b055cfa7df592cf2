import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { Encoder, encodePieces } from '../../src/generation/encoder.js'
import { loadTokenizer } from '../../src/models/tokenizer.js'

const folder = fileURLToPath(new URL('../../models/tales', import.meta.url))
// The thread runs the compiled file; `npm test` builds it first.
const threadFile = new URL('../../dist/generation/encode_thread.js', import.meta.url)

test.skipIf(!existsSync(threadFile))(
  'long text is encoded by the thread, to the same ids, while this thread goes on',
  async () => {
    const tokenizer = await loadTokenizer(folder)
    const encoder = new Encoder(tokenizer, folder, threadFile)
    const pieces = [
      { text: 'Once upon a time there was a <|user|> king. '.repeat(1000), allowSpecial: true },
      { text: '<|endoftext|>', allowSpecial: false },
    ]
    let ticks = 0
    const ticking = setInterval(() => ticks++, 1)
    const [one, two] = await Promise.all([encoder.encode(pieces, false), encoder.encode(pieces, true)])
    clearInterval(ticking)
    expect(one).toEqual(encodePieces(tokenizer, pieces, false))
    expect(two).toEqual(encodePieces(tokenizer, pieces, true))
    expect(one.length).toBeGreaterThan(5000)
    expect(ticks).toBeGreaterThan(2)
    await encoder.close()
  },
)

test.skipIf(!existsSync(threadFile))('a thread that cannot start fails its requests and nothing else', async () => {
  const tokenizer = await loadTokenizer(folder)
  const encoder = new Encoder(tokenizer, '/nowhere', threadFile)
  const pieces = [{ text: 'long '.repeat(3000), allowSpecial: true }]
  await expect(encoder.encode(pieces, false)).rejects.toThrow(/nowhere/)
  expect((await encoder.encode([{ text: 'short', allowSpecial: true }], false)).length).toBeGreaterThan(0)
  await encoder.close()
})
