// Templates render as transformers renders them (test/fixtures/chat-templates/golden.json says what it gives), and end whatever they say.

import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { BudgetError, JinjaTemplate, TemplateError } from '../../src/generation/jinja/jinja.js'
import { renderChat } from '../../src/generation/prompt.js'
import { type ChatMessage, ChatTemplate } from '../../src/generation/template.js'

type Outcome = { text: string; error?: undefined } | { error: string; text?: undefined }

interface Golden {
  conversations: Record<string, ChatMessage[]>
  families: ({ family: string; conversation: string; options: Record<string, boolean> } & Outcome)[]
  variables: Record<string, unknown>
  snippets: ({ source: string } & Outcome)[]
}

const folder = new URL('../fixtures/chat-templates/', import.meta.url)
const golden: Golden = JSON.parse(readFileSync(new URL('golden.json', folder), 'utf8'))
const now = () => new Date(2026, 6, 4, 9, 5, 3)
const limits = { steps: 100_000, size: 1 << 22 }

describe('chats of every family are those of transformers', () => {
  for (const family of new Set(golden.families.map((one) => one.family))) {
    test(family, async () => {
      const source = readFileSync(new URL(`families/${family}.jinja`, folder), 'utf8')
      const template = new ChatTemplate(source, { bos_token: '<s>', eos_token: '</s>' }, null, now)
      const cases = golden.families.filter((one) => one.family === family)
      expect(cases.length).toBeGreaterThan(30)
      for (const { conversation, options, text, error } of cases) {
        const { add_generation_prompt = false, continue_final_message = false, ...variables } = options
        const render = () =>
          renderChat(template, golden.conversations[conversation] ?? [], [], {
            addGenerationPrompt: add_generation_prompt,
            continueFinalMessage: continue_final_message,
            variables,
          })
        const what = `${conversation} ${JSON.stringify(options)}`
        if (text !== undefined) expect(await render(), what).toEqual({ text, plain: [] })
        else if (continue_final_message) await expect(render(), what).rejects.toThrow()
        else await expect(render(), what).rejects.toThrow(error)
      }
    })
  }
})

test('each part of Jinja and Python gives what it gives in Python', () => {
  for (const { source, text, error } of golden.snippets) {
    const render = () => new JinjaTemplate(source).render(golden.variables, limits, now)
    if (error === undefined) expect(render(), source).toBe(text)
    else expect(render, source).toThrow(TemplateError)
  }
})

test('errors say what Python says, or where the source is no Jinja', () => {
  const message = (source: string) => {
    try {
      return new JinjaTemplate(source).render(golden.variables, limits)
    } catch (error) {
      return (error as Error).message
    }
  }
  for (const [source, expected] of [
    ["{{ raise_exception('Roles must alternate') }}", 'Roles must alternate'],
    ['{{ nope.x }}', "'nope' is undefined"],
    ['{{ messages[0].nope.x }}', "'dict object' has no attribute 'nope'"],
    ["{{ 'a' + 1 }}", 'can only concatenate str (not "int") to str'],
    ['{{ 1 < "a" }}', "'<' not supported between instances of 'int' and 'str'"],
    ['{{ [1] | nofilter }}', "No filter named 'nofilter'."],
    ['{{ "a" | urlize }}', "the filter 'urlize' is not supported"],
    ["{{ 'a'.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."],
    ['\n\n{% if x %}', 'line 3: expected {% elif %} or {% else %} or {% endif %}, found the end of the template'],
    ['a\n{% include "b" %}', 'line 2: {% include %} is not supported in chat templates'],
    ['{% if x %}{% break %}{% endif %}', 'line 1: {% break %} outside of a loop'],
    ['{{ a b }}', "line 1: expected the end of the tag, found 'b'"],
    ['{{ a', 'line 1: the template ends inside a tag'],
    ['{{ a ? b }}', "line 1: unexpected character '?'"],
  ] as const) {
    expect(message(source), source).toBe(expected)
  }
})

/** Expressions that work through the texts s and t, the lists l and m or the dicts d and e. */
const workers = `
  s | length; s[0]; s[1:]; s | last ~ s; s | reverse; s | list | first; s.upper(); s | lower; s | title; s.title();
  s.swapcase(); s | capitalize; s.capitalize(); s | wordcount; s.isupper(); s.islower(); s.isalnum(); s is lower;
  s | trim; s.strip('a'); s.split(); s.split('b'); s.rsplit('b', 1); s.splitlines(); s.partition('b'); s.rpartition('b');
  s.replace('b', ''); s | replace('b', ''); s.find('b'); s.rfind('b'); s.count('b'); 'b' in s; s.startswith(s);
  s.endswith(s); s.removeprefix(s); s.removesuffix(s); s.center(9); s.ljust(9); s.rjust(9); s.zfill(9); s | indent;
  s | center; s == t; s < t; s + t; s ~ t; '%.1s' % s; s % (); s.format(); ''.join([s]); [s] | join; [s] | string;
  [s] | tojson; s * 2; s | tojson; d.keys(); d.values(); d.items(); d | items; d | dictsort; d | last; d | list;
  d | tojson; d | string; d == e; l | list; l | sort; l | unique | first ~ l; l | sum; l | max; l | min; l | batch(3);
  l | slice(3); l | reverse; l | map('string') | list | groupby(0); l | join; l | tojson; l | string; l[1:]; l + m;
  l * 2; l == m; l < m; -1 in l; l.count(-1); l.index(9999); l | select('eq', -1) | list; l | map('string') | list;
  l | reject('ge', 0) | first; namespace(d); dict(d); range(10000); strftime_now(s); (s + "😀")[0]; (s + "😀") | length
`
  .trim()
  .split(/;\s*/)

describe('a template ends in bounded time and memory', () => {
  const deep = `${'('.repeat(50_000)}1${')'.repeat(50_000)}`
  for (const [what, source, reason] of [
    ['a huge range', '{% for i in range(10**9) %}{% endfor %}', /Range too big/],
    [
      'loops in loops',
      '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
      /too many steps/,
    ],
    ['a macro without end', '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', /nests too deep/],
    ['a loop without end', '{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}', /nests too deep/],
    ['deep brackets', `{{ ${deep} }}`, /nests too deep/],
    [
      'a text that doubles',
      "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
      /too much text/,
    ],
    [
      'a list that doubles',
      '{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}',
      /too much text/,
    ],
    [
      'a value that holds itself twice, again and again',
      '{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}',
      /too m/,
    ],
    ['a repeated text', "{{ 'a' * 10**12 }}", /too m/],
    ['a repeated list', '{{ [1] * 10**12 }}', /too m/],
    ['a wide column', "{{ 'a' | center(10**12) }}{{ 'a'.ljust(10**12) }}", /too m/],
    ['a deep indent', "{{ 'a\nb' | indent(10**12) }}", /too m/],
    ['a deep JSON', '{{ [1] | tojson(indent=10**12) }}', /too m/],
    ['a long fill', '{{ [1] | batch(10**12, 0) | list }}{{ [1] | slice(10**12) | list }}', /too m/],
    ['a long replacement', "{% set s = 'a' * 9999 %}{{ s.replace('a', s) }}", /too m/],
    ['a wide format', "{{ '%999999999d' % 1 }}", /wider/],
    ['a large number', '{{ 10 ** 10 ** 10 }}', /too large/],
    [
      'a long search',
      "{% set s = 'a' * 99999 %}{% for i in range(99999) %}{{ 'b' in s }}{% endfor %}",
      /too many steps/,
    ],
    ['a quadratic test', '{{ range(99999) | unique | list | length }}', /too many steps/],
  ] as const) {
    test(what, () => {
      expect(() => new JinjaTemplate(source).render({}, limits)).toThrow(reason)
    })
  }

  test('the limit counts what the template does, not the time', () => {
    const template = new JinjaTemplate('{% for m in messages %}{{ m }}{% endfor %}')
    const render = (count: number) => template.render({ messages: Array(count).fill('x') }, { steps: 400, size: 400 })
    expect(render(50)).toHaveLength(50)
    expect(() => render(200)).toThrow(BudgetError)
  })

  // Each works through 60,000 characters or 10,000 items, which takes a thousand steps; twenty of its own would not end the budget.
  test('what works through a text or a list pays for its length', () => {
    const long = 'a'.repeat(60_000)
    const list = Array.from({ length: 10_000 }, (_, i) => i)
    const dict = Object.fromEntries(list.map((i) => [`key${i}`, i]))
    const free: string[] = []
    for (const expression of workers) {
      const template = new JinjaTemplate(`{% for i in range(30) %}{% set x = ${expression} %}{% endfor %}`)
      const variables = { s: long, t: `${long.slice(1)}a`, l: list, m: [...list], d: dict, e: { ...dict } }
      try {
        template.render(variables, { steps: 12_000, size: 1e12 })
        free.push(expression)
      } catch (error) {
        if (!(error instanceof BudgetError)) throw new Error(`${expression}: ${error}`)
      }
    }
    expect(free).toEqual([])
  })

  test('a search pays for what it looks for at every place', () => {
    const source = "{{ s.count(t) }}{{ t in s }}{{ s.replace(t, '') }}{{ s.find(t) }}{{ s.split(t) }}"
    const variables = { s: 'a'.repeat(100_000), t: `b${'a'.repeat(50_000)}` }
    expect(() => new JinjaTemplate(source).render(variables, { steps: 1e6, size: 1e9 })).toThrow(BudgetError)
  })

  test('white space without end costs no more than its length', () => {
    const source = `${' '.repeat(300_000)}x{%- if true %}${'\n '.repeat(200_000)}x{{- 1 }}{% endif %}`
    expect(new JinjaTemplate(source).render({}, { steps: 1e6, size: 1e6 })).toHaveLength(700_002)
  })
})

test('nothing of JavaScript can be reached', () => {
  for (const name of ['constructor', '__proto__', 'prototype', 'toString', 'valueOf', 'hasOwnProperty']) {
    for (const value of ['messages', 'messages[0]', "'a'", '1', 'range', 'loopless', 'namespace()', '(1, 2)', '1.5']) {
      const render = (source: string) => new JinjaTemplate(source).render({ ...golden.variables, loopless: {} }, limits)
      expect(render(`{{ (${value})['${name}'] is defined }}{{ (${value}).${name} is defined }}`)).toBe('FalseFalse')
    }
    expect(() => new JinjaTemplate(`{{ 1 | ${name} }}`).render({}, limits)).toThrow(/No filter/)
    expect(() => new JinjaTemplate(`{{ 1 is ${name} }}`).render({}, limits)).toThrow(/No test/)
    expect(new JinjaTemplate(`{{ ${name} is defined }}`).render({}, limits)).toBe('False')
  }
})
