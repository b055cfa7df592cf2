// --chat-template: files and built-in templates.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { ChatTemplate } from '../src/generation/template.js'
import type { Tokenizer } from '../src/models/tokenizer.js'
import { readTemplateOption } from '../src/template_option.js'
import { fakeTokenizer } from './generation/fake_model.js'

const folder = mkdtempSync(join(tmpdir(), 'parley-template-'))
afterAll(() => rmSync(folder, { recursive: true }))

const messages = [
  { role: 'system' as const, content: 'Be brief.' },
  { role: 'user' as const, content: 'Hi' },
  { role: 'assistant' as const, content: 'Hello.' },
  { role: 'user' as const, content: 'Bye' },
]

const render = async (option: string, tokenizer: Tokenizer = fakeTokenizer()) =>
  new ChatTemplate((await readTemplateOption(option))(tokenizer), { bos_token: '<s>' }).render(messages)

test('built-in templates begin with BOS where the tokenizer puts one before a text', async () => {
  const plain = 'Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: Bye\n\nAssistant:'
  expect(await render('builtin:plain')).toBe(plain)
  const addsBos = fakeTokenizer({
    bosTokenId: 7,
    encode: (_, { addSpecialTokens = true } = {}) => (addSpecialTokens ? [7] : []),
  })
  expect(await render('builtin:plain', addsBos)).toBe(`<s>${plain}`)
  expect(await render('builtin:plain', fakeTokenizer({ bosTokenId: 7, encode: () => [] }))).toBe(plain)
  expect(await render('builtin:chatml')).toBe(
    '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n',
  )
})

test('a file is read, and refused at once when it holds no template', async () => {
  const file = join(folder, 'my.jinja')
  writeFileSync(file, '{% for m in messages %}[{{ m.content }}]{% endfor %}')
  expect(await render(file)).toBe('[Be brief.][Hi][Hello.][Bye]')
  writeFileSync(file, 'a\n{% for %}')
  await expect(render(file)).rejects.toThrow(/^--chat-template: .*my\.jinja: line 2: expected a name/)
  await expect(render(join(folder, 'none.jinja'))).rejects.toThrow(/^--chat-template: expected a file, .*none\.jinja/)
  await expect(render(folder)).rejects.toThrow(/^--chat-template: .*found a folder/)
  await expect(render('builtin:alpaca')).rejects.toThrow(
    '--chat-template: expected a file, or builtin:plain or builtin:chatml, got "builtin:alpaca"',
  )
})
