// Jinja source → tokens, with trim_blocks and lstrip_blocks on, as transformers reads it.

import { TemplateError } from './errors.js'
import { space, trimEnd } from './space.js'

export interface Token {
  type: 'text' | 'begin' | 'end' | 'name' | 'string' | 'integer' | 'float' | 'operator'
  /** of a 'begin' and an 'end' `%` or `{`: statement or output */
  value: string
  line: number
}

const onlySpace = new RegExp(`^[${space}]+$`)
const sticky = (source: string, flags = '') => new RegExp(source, `y${flags}`)
const tagBegin = /\{[%{#][-+]?/g
const commentEnd = new RegExp(`\\+#\\}|-#\\}[${space}]*|#\\}\\n?`, 'g')
const rawBegin = sticky(`\\{%[-+]?[${space}]*raw[${space}]*(?:-%\\}[${space}]*|%\\})`)
const rawEnd = new RegExp(`\\{%([-+]?)[${space}]*endraw[${space}]*(?:\\+%\\}|-%\\}[${space}]*|%\\}\\n?)`, 'g')
const ends: Record<string, RegExp> = {
  '%': sticky(`\\+%\\}|-%\\}[${space}]*|%\\}\\n?`),
  '{': sticky(`-\\}\\}[${space}]*|\\}\\}`),
}
const parts: [type: Token['type'] | 'space', pattern: RegExp][] = [
  ['space', sticky(`[${space}]+`)],
  ['float', sticky('(?<!\\.)(?:\\d+_)*\\d+(?:(?:\\.(?:\\d+_)*\\d+)?e[+-]?(?:\\d+_)*\\d+|\\.(?:\\d+_)*\\d+)', 'i')],
  ['integer', sticky('0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\\da-f])+|[1-9](?:_?\\d)*|0(?:_?0)*', 'i')],
  ['name', sticky('[\\p{L}\\p{Nl}_][\\p{L}\\p{M}\\p{N}\\p{Pc}]*', 'u')],
  ['string', sticky('\'[^\'\\\\]*(?:\\\\.[^\'\\\\]*)*\'|"[^"\\\\]*(?:\\\\.[^"\\\\]*)*"', 's')],
  ['operator', sticky('\\*\\*|//|[=!<>]=|[-+/*%~[\\](){}<>=.:|,;]')],
]
const closing: Record<string, string> = { '(': ')', '[': ']', '{': '}' }

/** @throws TemplateError naming the line */
export function tokenize(template: string): Token[] {
  const source = template.replace(/\r\n?/g, '\n').replace(/\n$/, '')
  const tokens: Token[] = []
  let position = 0
  let line = 1
  /** The tag before ended with the newline that it took away. */
  let lineStarting = true
  const fail = (message: string): never => {
    throw new TemplateError(`line ${line}: ${message}`)
  }
  const push = (type: Token['type'], value: string) => tokens.push({ type, value, line })
  const advance = (to: number) => {
    for (let at = source.indexOf('\n', position); at >= 0 && at < to; at = source.indexOf('\n', at + 1)) line++
    lineStarting = source[to - 1] === '\n'
    position = to
  }
  /** The text before a tag, whose sign says what becomes of the white space between them. */
  const pushText = (text: string, sign: string, isOutput: boolean) => {
    let kept = text
    if (sign === '-') kept = trimEnd(text)
    else if (sign === '' && !isOutput) {
      const lineStart = text.lastIndexOf('\n') + 1
      if ((lineStart > 0 || lineStarting) && onlySpace.test(text.slice(lineStart))) kept = text.slice(0, lineStart)
    }
    if (kept !== '') push('text', kept)
  }
  const find = (pattern: RegExp, from: number): RegExpExecArray | null => {
    pattern.lastIndex = from
    return pattern.exec(source)
  }

  while (position < source.length) {
    const begin = find(tagBegin, position)
    if (begin === null) {
      push('text', source.slice(position))
      break
    }
    const kind = begin[0][1] ?? ''
    pushText(source.slice(position, begin.index), begin[0][2] ?? '', kind === '{')
    if (kind === '#') {
      const end = find(commentEnd, begin.index + begin[0].length)
      advance(end === null ? fail('a comment has no end') : end.index + end[0].length)
      continue
    }
    const raw = kind === '%' ? find(rawBegin, begin.index) : null
    if (raw !== null) {
      advance(begin.index + raw[0].length)
      const end = find(rawEnd, position) ?? fail('{% raw %} has no end')
      pushText(source.slice(position, end.index), end[1] ?? '', false)
      advance(end.index + end[0].length)
      continue
    }
    advance(begin.index + begin[0].length)
    push('begin', kind)
    readTag(kind)
  }
  return tokens

  /** The tokens from behind a tag's begin to its end. */
  function readTag(kind: string): void {
    const open: string[] = []
    for (;;) {
      const end = open.length === 0 ? find(ends[kind] as RegExp, position) : null
      if (end !== null) {
        push('end', kind)
        advance(position + end[0].length)
        return
      }
      let found = false
      for (const [type, pattern] of parts) {
        const match = find(pattern, position)
        if (match === null) continue
        found = true
        const value = match[0]
        if (type === 'operator') {
          if (closing[value] !== undefined) open.push(closing[value])
          else if (')]}'.includes(value) && open.pop() !== value) fail(`unexpected '${value}'`)
        }
        if (type === 'string') push(type, unescapeText(value.slice(1, -1)))
        else if (type !== 'space') push(type, value)
        advance(position + value.length)
        break
      }
      if (!found) {
        const char = source.slice(position, position + 2).match(/^./u)?.[0]
        fail(char === undefined ? 'the template ends inside a tag' : `unexpected character '${char}'`)
      }
    }
  }
}

const escapes: Record<string, string> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
}

/** Escape sequences as in Python's texts; what is none stays as it is. */
function unescapeText(text: string): string {
  if (!text.includes('\\')) return text
  return text.replace(
    /\\(?:x([\da-fA-F]{2})|u([\da-fA-F]{4})|U([\da-fA-F]{8})|([0-7]{1,3})|(.))/gs,
    (whole, x?: string, u?: string, U?: string, octal?: string, char?: string) => {
      const hex = x ?? u ?? U
      if (hex !== undefined) {
        const code = Number.parseInt(hex, 16)
        if (code > 0x10ffff) throw new TemplateError(`${whole} is no character`)
        return String.fromCodePoint(code)
      }
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8))
      const letter = char ?? ''
      if (letter === 'x' || letter === 'u' || letter === 'U' || letter === 'N') {
        throw new TemplateError(`the escape sequence ${whole} is not complete or not supported`)
      }
      return escapes[letter] ?? whole
    },
  )
}
