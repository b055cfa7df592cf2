import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { Encoder } from '../../src/generation/encoder.js'
import { Prompts } from '../../src/generation/prompts.js'
import { loadTokenizer } from '../../src/models/tokenizer.js'
import { fakeModel } from './fake_model.js'

const folder = (name: string) => fileURLToPath(new URL(`../fixtures/tokenizers/${name}`, import.meta.url))

// What Hugging Face's decode gives with the names of special tokens.
test.each([
  ['llama-first', 'the king  x', '<s> the king  x'],
  ['llama-legacy', ' the king  x', '<s>  the king  x'],
  ['t5', 'the king x', '<s> the king x'],
  ['gemma', ' the king  x', '<s> the king  x'],
  ['neox', ' the king  x', '<|padding|> the king  x'],
])('ids become text as a whole, for %s', async (name, text, behindSpecial) => {
  const tokenizer = await loadTokenizer(folder(name))
  const prompts = new Prompts(fakeModel({ tokenizer }), new Encoder(tokenizer, null), 256, null, false)
  const ids = await prompts.encode(' the king  x', false)
  expect(prompts.decode(ids)).toBe(text)
  expect(prompts.decode([1, ...ids])).toBe(behindSpecial)
})
