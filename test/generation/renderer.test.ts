// Short chats are rendered at once; long ones, and templates that do too much, in a thread, while this thread goes on.

import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { BudgetError, TemplateError } from '../../src/generation/jinja/jinja.js'
import { Renderer } from '../../src/generation/renderer.js'

// The thread runs the compiled file; `npm test` builds it first.
const threadFile = new URL('../../dist/generation/render_thread.js', import.meta.url)
const hasThread = existsSync(threadFile)

/** What the work gives, and how often this thread could do something else meanwhile. */
async function whileTicking<T>(work: Promise<T>): Promise<[T, number]> {
  let ticks = 0
  const ticking = setInterval(() => ticks++, 1)
  const result = await work
  clearInterval(ticking)
  return [result, ticks]
}

test.skipIf(!hasThread)('a long chat is rendered by the thread, to the same text', async () => {
  const source = '{% for m in messages %}[{{ m.role }}: {{ m.content | trim }}]{% endfor %}{{ strftime_now("%Y") }}'
  const messages = Array.from({ length: 10_000 }, (_, i) => ({ role: 'user', content: ` message ${i} ` }))
  const here = new Renderer(source, null)
  const withThread = new Renderer(source, threadFile)
  const [text, ticks] = await whileTicking(withThread.render({ messages }))
  expect(text).toBe(await here.render({ messages }))
  expect(ticks).toBeGreaterThan(0)
  // A short one needs no thread: its text is there when the microtasks have run.
  let short = ''
  withThread.render({ messages: messages.slice(0, 1) }).then((result) => {
    short = result
  })
  await Promise.resolve()
  await Promise.resolve()
  expect(short).toMatch(/^\[user: message 0\]/)
  await withThread.close()
})

test.skipIf(!hasThread)('a template that does too much is stopped in the thread, others go on', async () => {
  const source =
    '{% if x == 1 %}{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{% endif %}{% if x == 2 %}{% for i in range(30000) %}{% endfor %}{{ raise_exception("No.") }}{% endif %}ok'
  const renderer = new Renderer(source, threadFile)
  const [outcomes, ticks] = await whileTicking(Promise.allSettled([1, 2, 3].map((x) => renderer.render({ x }))))
  expect(outcomes[0]).toMatchObject({ reason: expect.any(BudgetError) })
  expect(outcomes[1]).toMatchObject({ reason: expect.any(TemplateError), status: 'rejected' })
  expect((outcomes[1] as PromiseRejectedResult).reason.message).toBe('No.')
  expect(outcomes[2]).toEqual({ status: 'fulfilled', value: 'ok' })
  expect(ticks).toBeGreaterThan(0)
  await renderer.close()
})

test('a thread that cannot start fails the chats that need it and nothing else', async () => {
  const renderer = new Renderer('{% for i in range(n) %}{% endfor %}ok', new URL('./nowhere.js', import.meta.url))
  await expect(renderer.render({ n: 99999 })).rejects.toThrow(/nowhere/)
  expect(await renderer.render({ n: 9 })).toBe('ok')
})
