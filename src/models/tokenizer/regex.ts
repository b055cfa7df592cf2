// Oniguruma's regular expressions, which tokenizer.json is written in, as JavaScript's. The two differ in what \s, \w and \d are, in
// nested classes and in case-insensitive and possessive parts; what is not known here is refused by name.

import type { Pattern } from './definition.js'

/** Oniguruma's classes, as the inside of a JavaScript class. Its \s is Unicode's white space, its \w has Latin-1's numbers and no other. */
const classes: Record<string, string> = {
  s: '\\p{White_Space}',
  w: '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe',
  d: '\\p{Nd}',
  h: '0-9a-fA-F',
}
const controls: Record<string, string> = { n: '\\n', r: '\\r', t: '\\t', f: '\\f', v: '\\v', a: '\\x07', e: '\\x1b' }

/** Letters that are the same in another case, beyond ASCII: long s and the Kelvin sign. */
const otherCases: Record<string, string> = { s: '\u017f', k: '\u212a' }

/** A global JavaScript expression for a pattern. @throws PatternError for a part of the syntax that is not known */
export function compilePattern(pattern: Pattern): RegExp {
  if ('text' in pattern) return new RegExp(pattern.text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&'), 'gu')
  const source = new Translation(pattern.regex).all()
  try {
    return new RegExp(source, 'gv')
  } catch {
    throw new PatternError('a regular expression that can be understood')
  }
}

/** The message says what was expected. */
export class PatternError extends Error {}

class Translation {
  #at = 0
  #ignoreCase = false
  #numAtomic = 0

  constructor(readonly regex: string) {}

  all(): string {
    const out = this.#alternatives()
    if (this.#at < this.regex.length) throw this.#error('brackets that match')
    return out
  }

  #error(expected: string): PatternError {
    return new PatternError(`a regular expression with ${expected}`)
  }

  /** Up to the bracket that closes, which is left. */
  #alternatives(): string {
    let out = ''
    while (this.#at < this.regex.length && this.regex[this.#at] !== ')') {
      if (this.regex[this.#at] === '|') {
        out += '|'
        this.#at++
      } else {
        out += this.#quantified()
      }
    }
    return out
  }

  #quantified(): string {
    let atom = this.#atom()
    for (;;) {
      const quantifier = /^(?:[*+?]|\{\d*,?\d*\})/.exec(this.regex.slice(this.#at))?.[0]
      if (quantifier === undefined) return atom
      if (/^\{,?\}$/.test(quantifier)) throw this.#error('numbers in {}')
      this.#at += quantifier.length
      const bounds = quantifier.replace('{,', '{0,')
      const next = this.regex[this.#at]
      if (next === '?') {
        this.#at++
        atom = `(?:${atom}${bounds}?)`
      } else if (next === '+' && !quantifier.startsWith('{')) {
        // Possessive: what a look-ahead has found is not given back.
        this.#at++
        const name = `atomic${this.#numAtomic++}`
        atom = `(?:(?=(?<${name}>${atom}${bounds}))\\k<${name}>)`
      } else {
        atom = `(?:${atom}${bounds})`
      }
    }
  }

  #atom(): string {
    const char = this.#next()
    switch (char) {
      case '(':
        return this.#group()
      case '[':
        return this.#class()
      case '\\':
        return this.#escape(false)
      case '.':
        return '[^\\n]'
      case '^':
        return '(?<=^|\\n)'
      case '$':
        return '(?=\\n|$)'
      case '*':
      case '+':
      case '?':
        throw this.#error('something before a quantifier')
      default:
        return this.#literal(char, false)
    }
  }

  #group(): string {
    const rest = this.regex.slice(this.#at)
    const open = /^\?(?::|=|!|<=|<!|>|[imx]*(?:-[imx]*)?:)/.exec(rest)?.[0] ?? ''
    if (open === '' && rest.startsWith('?')) throw this.#error('groups of a known kind')
    this.#at += open.length
    const outer = this.#ignoreCase
    let kind = open
    if (/^\?[imx-]+:$/.test(open)) {
      if (!/^\?(?:i|-i):$/.test(open)) throw this.#error('no flags but i')
      this.#ignoreCase = open === '?i:'
      kind = '?:'
    }
    const inside = this.#alternatives()
    this.#ignoreCase = outer
    if (this.#next() !== ')') throw this.#error('brackets that match')
    if (open === '?>') {
      const name = `atomic${this.#numAtomic++}`
      return `(?:(?=(?<${name}>${inside}))\\k<${name}>)`
    }
    return `(${kind || '?:'}${inside})`
  }

  /** After the backslash. */
  #escape(inClass: boolean): string {
    const char = this.#next()
    if (char === 'p' || char === 'P') return this.#property(char)
    const lower = char.toLowerCase()
    const known = classes[lower]
    if (known !== undefined) {
      if (char === lower) return inClass && /^0-9/.test(known) ? known : `[${known}]`
      return `[^${known}]`
    }
    const control = controls[char]
    if (control !== undefined) return control
    if (char === 'x' || char === 'u') {
      const code = /^(?:\{[0-9a-fA-F]{1,6}\}|[0-9a-fA-F]{2,4})/.exec(this.regex.slice(this.#at))?.[0]
      if (code === undefined) throw this.#error('hexadecimal digits after \\x and \\u')
      const digits = code.startsWith('{') ? code : code.slice(0, char === 'x' ? 2 : 4)
      this.#at += digits.length
      return `\\u{${digits.replace(/[{}]/g, '')}}`
    }
    if (!inClass && char === 'A') return '(?<![^])'
    if (!inClass && char === 'z') return '(?![^])'
    if (/[\p{L}\p{N}]/u.test(char)) throw this.#error(`no \\${char}`)
    return this.#literal(char, inClass)
  }

  #property(letter: string): string {
    const match = /^\{(\^?)([\w ]+)\}/.exec(this.regex.slice(this.#at))
    if (match === null) throw this.#error(`a name in braces after \\${letter}`)
    this.#at += match[0].length
    const not = (letter === 'P') !== (match[1] === '^')
    const name = match[2] ?? ''
    const forms = [`\\p{${name}}`, `\\p{Script=${name}}`].filter(isProperty)
    if (forms[0] === undefined) throw this.#error(`a property that JavaScript knows instead of ${name}`)
    return not ? forms[0].replace('\\p', '\\P') : forms[0]
  }

  /** After the bracket that opens. Classes may lie inside classes, and && intersects them. */
  #class(): string {
    let out = '['
    if (this.regex[this.#at] === '^') {
      out += '^'
      this.#at++
    }
    for (let first = true; ; first = false) {
      const char = this.#next()
      if (char === ']' && !first) return `${out}]`
      if (char === '[') {
        if (this.regex[this.#at] === ':') throw this.#error('no POSIX classes')
        out += this.#class()
      } else if (char === '&' && this.regex[this.#at] === '&') {
        this.#at++
        out += '&&'
      } else if (char === '-' && !first && this.regex[this.#at] !== ']') {
        if (this.#ignoreCase) throw this.#error('no range of letters in any case')
        out += '-'
      } else {
        out += char === '\\' ? this.#escape(true) : this.#literal(char, true)
      }
    }
  }

  #literal(char: string, inClass: boolean): string {
    const cases = this.#ignoreCase
      ? [...new Set([char, char.toLowerCase(), char.toUpperCase(), otherCases[char.toLowerCase()] ?? char])]
      : [char]
    const escaped = cases
      .filter((one) => [...one].length === 1)
      .map((one) => (/[\\^$.*+?()[\]{}|/\-&!#%,:;<=>@`~]/.test(one) ? `\\u{${one.codePointAt(0)?.toString(16)}}` : one))
    if (inClass || escaped.length === 1) return escaped.join('')
    return `[${escaped.join('')}]`
  }

  #next(): string {
    const code = this.regex.codePointAt(this.#at)
    if (code === undefined) throw this.#error('an end')
    const char = String.fromCodePoint(code)
    this.#at += char.length
    return char
  }
}

function isProperty(source: string): boolean {
  try {
    new RegExp(source, 'v')
    return true
  } catch {
    return false
  }
}
