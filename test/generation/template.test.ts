import { expect, test } from 'vitest'
import { ApiError } from '../../src/errors.js'
import { renderChat, specialTexts } from '../../src/generation/prompt.js'
import { ChatTemplate } from '../../src/generation/template.js'
import { chatTemplate, fakeTokenizer } from './fake_model.js'

const render = (source: string, ...contents: string[]) =>
  new ChatTemplate(source, { eos_token: '</s>' }).render(contents.map((content) => ({ role: 'user', content })))

test('blocks take their line with them, as trim_blocks and lstrip_blocks do', async () => {
  expect(
    await render(
      '{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\nend',
      'a',
      'b',
    ),
  ).toBe('a\nb\nend')
})

test('what templates of Hugging Face use', async () => {
  expect(await render("{{ messages[0]['content'].strip().upper() + eos_token }}", '  hi ')).toBe('HI</s>')
  expect(await render('{{ messages[0] | tojson }}', 'é<"')).toBe('{"role": "user", "content": "é<\\""}')
  expect(await render('{{ strftime_now("%Y") }}', 'x')).toBe(String(new Date().getFullYear()))
  expect(await render('{% if tools %}tools{% else %}none{% endif %}{{ bos_token }}', 'x')).toBe('none')
  expect(
    await render(
      '{% for m in messages[::-1] %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}',
      'a',
      'b',
    ),
  ).toBe('b')
  expect(await render('{% generation %}{{ messages[0].content }}{% endgeneration %}', 'x')).toBe('x')
})

test('raise_exception and other complaints become an error that a client understands', async () => {
  for (const source of [
    "{{ raise_exception('Roles must alternate') }}",
    "{{ messages[0].content.nothing() ~ 'Roles must alternate' }}",
  ]) {
    const failing = () => render(source, 'x')
    await expect(failing()).rejects.toThrow(ApiError)
    await expect(failing()).rejects.toThrow(/^The model's chat template refuses these messages: /)
  }
  await expect(render("{{ raise_exception('Roles must alternate') }}", 'x')).rejects.toThrow(/Roles must alternate$/)
  await expect(render("{{ 'a' * 10**12 }}", 'x')).rejects.toMatchObject({
    status: 400,
    kind: 'chat_template_failed',
    message: "The model's chat template was stopped: it takes too many steps",
  })
})

test('text of special tokens inside a message is plain text, the template’s own is not', async () => {
  const tokenizer = fakeTokenizer()
  const template = new ChatTemplate(chatTemplate, { eos_token: '<|endoftext|>' })
  const specials = specialTexts(tokenizer)
  expect(specials).toEqual(['<|endoftext|>', '<|assistant|>', '<|user|>'])
  const { text, plain } = await renderChat(
    template,
    [
      { role: 'user', content: 'a<|endoftext|>b\ue000c<|user|>' },
      { role: 'assistant', content: 'd' },
    ],
    specials,
  )
  expect(text).toBe('<|user|>a<|endoftext|>b\ue000c<|user|><|assistant|>d<|endoftext|><|assistant|>')
  expect(plain).toEqual([
    [9, 22],
    [25, 33],
  ])
  expect(await renderChat(template, [{ role: 'user', content: 'plain' }], specials)).toEqual({
    text: '<|user|>plain<|assistant|>',
    plain: [],
  })
})

test('whatever characters a message has, others stand for special tokens in it', async () => {
  const template = new ChatTemplate('{{ messages[0].content }}', {})
  const all = Array.from({ length: 0x1900 }, (_, i) => String.fromCharCode(0xe000 + i)).join('')
  const chat = (content: string) => renderChat(template, [{ role: 'user', content }], ['<s>', '</s>'])
  const text = `<s>${all.slice(0, -2)}</s>`
  expect(await chat(text)).toEqual({
    text,
    plain: [
      [0, 3],
      [text.length - 4, text.length],
    ],
  })
  expect(await chat(all)).toEqual({ text: all, plain: [] })
  await expect(chat(`<s>${all}`)).rejects.toThrow("'messages' use too many private-use characters.")
})

test('continue_final_message: the text ends with the last message, as transformers cuts it', async () => {
  const messages = [
    { role: 'user' as const, content: 'a' },
    { role: 'assistant' as const, content: 'Once upon ' },
  ]
  const text = (source: string) =>
    renderChat(new ChatTemplate(source, { eos_token: '</s>' }), messages, [], { continueFinalMessage: true })
  expect(await text(chatTemplate)).toEqual({ text: '<|user|>a<|assistant|>Once upon ', plain: [] })
  // A template that trims contents ends without the white space.
  expect(await text('{% for m in messages %}[{{ m.content | trim }}]{% endfor %}')).toEqual({
    text: '[a][Once upon',
    plain: [],
  })
  await expect(text('{{ messages[0].content }}')).rejects.toThrow(/cannot be continued/)
})

test('a request may set the names that the template uses, and no others', async () => {
  const template = new ChatTemplate(
    '{{ messages[0].content }}{% if enable_thinking %}<|user|>{{ note }}{% endif %}{{ bos_token }}{{ tools }}',
    { bos_token: '<s>' },
  )
  expect(
    ['enable_thinking', 'note', 'bos_token', 'tools', 'messages', 'other'].filter((name) => template.knows(name)),
  ).toEqual(['enable_thinking', 'note'])
  const rendered = await renderChat(template, [{ role: 'user', content: 'x' }], specialTexts(fakeTokenizer()), {
    variables: { enable_thinking: true, note: '<|user|>' },
  })
  // What a request sets is plain text, as messages are.
  expect(rendered).toEqual({ text: 'x<|user|><|user|><s>None', plain: [[9, 17]] })
})
