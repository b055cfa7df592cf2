// Python's str(), repr() and json.dumps().

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import {
  Callable,
  Float,
  isDict,
  isList,
  Markup,
  Namespace,
  Tuple,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

/** str() */
export function str(value: Value, budget: Budget): string {
  if (typeof value === 'string') return value
  if (value instanceof Markup) return value.text
  const text = value instanceof Undefined ? '' : repr(value, budget)
  budget.make(text.length)
  return text
}

/** repr() */
export function repr(value: Value, budget: Budget): string {
  budget.step()
  const list = (items: readonly Value[]) => items.map((item) => repr(item, budget)).join(', ')
  if (value === null) return 'None'
  if (typeof value === 'string') return reprText(value, budget)
  if (typeof value === 'number') return String(value)
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (value instanceof Float) return reprFloat(value.value)
  if (value instanceof Undefined) return 'Undefined'
  if (isList(value)) return `[${list(value)}]`
  if (value instanceof Tuple) return value.items.length === 1 ? `(${list(value.items)},)` : `(${list(value.items)})`
  if (isDict(value)) return dict(value, budget)
  if (value instanceof View && value.name !== 'range') return `${value.name}([${list(value.items)}])`
  if (value instanceof Namespace) return `<Namespace ${dict(value.attributes, budget)}>`
  throw new TemplateError(`a value of type '${typeName(value)}' has no text`)
}

function dict(value: ReadonlyMap<string | number | null, Value>, budget: Budget): string {
  return `{${[...value].map(([key, item]) => `${repr(key, budget)}: ${repr(item, budget)}`).join(', ')}}`
}

const named: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' }

function reprText(text: string, budget: Budget): string {
  budget.make(text.length)
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  // What is no letter, mark, number, punctuation or symbol, and no plain space, is written as its code.
  const shown = text.replace(/[\\'"]|\p{C}|[^\P{Z} ]/gu, (char) => {
    if (char === '"' || char === "'") return char === quote ? `\\${char}` : char
    const code = char.codePointAt(0) ?? 0
    const hex = code.toString(16)
    if (code < 0x100) return named[char] ?? `\\x${hex.padStart(2, '0')}`
    return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`
  })
  return quote + shown + quote
}

/** The shortest digits that give the number again, with an exponent below 1e-4 and from 1e16. */
export function reprFloat(value: number): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'nan' : value > 0 ? 'inf' : '-inf'
  if (Object.is(value, -0)) return '-0.0'
  const [, digits = '', exponent = ''] = /^(.+)e([+-]\d+)$/.exec(value.toExponential()) ?? []
  const power = Number(exponent)
  if (value !== 0 && (power < -4 || power >= 16)) {
    return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
  }
  // Between these JavaScript writes no exponent but for small numbers.
  const plain = power < 0 ? value.toFixed(Math.max(0, digits.replace(/[-.]/g, '').length - 1 - power)) : String(value)
  return plain.includes('.') ? plain : `${plain}.0`
}

export interface JsonStyle {
  ensureAscii: boolean
  /** null: on one line */
  indent: string | null
  itemSeparator: string
  keySeparator: string
  sortKeys: boolean
}

/** json.dumps() @throws TemplateError for what JSON does not have */
export function dumps(value: Value, style: JsonStyle, budget: Budget, depth = 0): string {
  budget.step()
  if (value === null) return 'null'
  if (typeof value === 'boolean') return String(value)
  if (typeof value === 'number') return String(value)
  if (value instanceof Float) return jsonFloat(value.value)
  if (typeof value === 'string') return jsonText(value, style, budget)
  const wrap = (open: string, parts: string[], close: string) => {
    if (parts.length === 0) return open + close
    const indent = (style.indent?.length ?? 0) * (depth + 1)
    const between = style.itemSeparator.length + indent + 1
    budget.make(parts.reduce((sum, part) => sum + part.length + between, 2 * indent))
    const inner = style.indent === null ? '' : `\n${style.indent.repeat(depth + 1)}`
    const outer = style.indent === null ? '' : `\n${style.indent.repeat(depth)}`
    return `${open}${inner}${parts.join(style.itemSeparator + inner)}${outer}${close}`
  }
  const items = isList(value) ? value : value instanceof Tuple ? value.items : null
  if (items !== null) {
    return wrap(
      '[',
      items.map((item) => dumps(item, style, budget, depth + 1)),
      ']',
    )
  }
  if (isDict(value)) {
    const entries = [...value].map(([key, item]) => [key === null ? 'null' : String(key), item] as const)
    if (style.sortKeys) entries.sort(([a], [b]) => compareText(a, b))
    return wrap(
      '{',
      entries.map(
        ([key, item]) => jsonText(key, style, budget) + style.keySeparator + dumps(item, style, budget, depth + 1),
      ),
      '}',
    )
  }
  throw new TemplateError(
    `Object of type ${value instanceof Callable ? 'function' : typeName(value)} is not JSON serializable`,
  )
}

function jsonFloat(value: number): string {
  if (Number.isFinite(value)) return reprFloat(value)
  return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity'
}

function jsonText(text: string, { ensureAscii }: JsonStyle, budget: Budget): string {
  budget.make(text.length)
  const json = JSON.stringify(text)
  return ensureAscii
    ? json.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
    : json
}

/** -1, 0 or 1, by code points: UTF-16 has the rarest characters before some others. */
export function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x === y) continue
    const isSurrogate = (unit: number) => unit >= 0xd800 && unit <= 0xdfff
    if (isSurrogate(x) !== isSurrogate(y)) return isSurrogate(x) ? 1 : -1
    return x < y ? -1 : 1
  }
  return Math.sign(a.length - b.length)
}
