// Python's "%s %d" % values and "{} {}".format(values), in their plain forms.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { repr, str } from './show.js'
import { type Arguments, isDict, numberOf, Tuple, typeName, Undefined, type Value } from './values.js'

/** `text % values` */
export function formatPercent(text: string, values: Value, budget: Budget): string {
  budget.read(text.length)
  const list = values instanceof Tuple ? values.items : [values]
  let used = 0
  const result = text.replace(
    /%(?:\((\w*)\))?([-+ 0#]*)(\d*)(?:\.(\d+))?(.)/gs,
    (whole, key: string | undefined, flags: string, width: string, precision: string | undefined, type: string) => {
      if (whole === '%%') return '%'
      let value: Value | undefined
      if (key === undefined) {
        value = list[used++]
        if (value === undefined) throw new TemplateError('not enough arguments for format string')
      } else {
        if (!isDict(values)) throw new TemplateError('format requires a mapping')
        value = values.get(key)
        if (value === undefined) throw new TemplateError(`'${key}'`)
      }
      if (Number(width || 0) > 1000 || Number(precision ?? 0) > 100) {
        throw new TemplateError(`'${whole}' is wider than is supported`)
      }
      const shown = formatOne(value, type, precision, whole, budget)
      const sign = /^[\d.]/.test(shown) && type !== 's' && type !== 'r' ? (/[+ ]/.exec(flags)?.[0] ?? '') : ''
      const padded = sign + shown
      if (flags.includes('#')) throw new TemplateError(`'${whole}' is not supported`)
      if (flags.includes('-')) return padded.padEnd(Number(width || 0))
      if (flags.includes('0') && type !== 's' && type !== 'r') {
        const minus = /^[-+ ]/.exec(padded)?.[0] ?? ''
        return minus + padded.slice(minus.length).padStart(Number(width || 0) - minus.length, '0')
      }
      return padded.padStart(Number(width || 0))
    },
  )
  if (used < list.length && !isDict(values)) {
    throw new TemplateError('not all arguments converted during string formatting')
  }
  budget.make(result.length)
  return result
}

function formatOne(value: Value, type: string, precision: string | undefined, whole: string, budget: Budget): string {
  if (type === 's' || type === 'r') {
    const text = type === 's' ? str(value, budget) : repr(value, budget)
    if (precision === undefined) return text
    budget.makeItems(text.length)
    return Array.from(text).slice(0, Number(precision)).join('')
  }
  if (value instanceof Undefined) throw new TemplateError(value.message)
  const number = numberOf(value)
  if ((type === 'd' || type === 'i') && precision === undefined) {
    if (number === null) throw new TemplateError(`%d format: a real number is required, not ${typeName(value)}`)
    return String(Math.trunc(number))
  }
  if (type === 'f' && number !== null && Math.abs(number) < 1e21) return number.toFixed(Number(precision ?? 6))
  throw new TemplateError(`'${whole}' is not supported`)
}

/** `text.format(values)`, without format specifications */
export function formatBraces(text: string, { args, kwargs }: Arguments, budget: Budget): string {
  budget.read(text.length)
  let next = 0
  const result = text.replace(/\{\{|\}\}|\{(\d*|[A-Za-z_]\w*)\}|[{}]/g, (whole, name: string | undefined) => {
    if (whole === '{{' || whole === '}}') return whole[0] ?? ''
    if (name === undefined) throw new TemplateError('str.format is supported with plain {}, {0} and {name} only')
    const value = name === '' ? args[next++] : /^\d/.test(name) ? args[Number(name)] : kwargs.get(name)
    if (value === undefined) throw new TemplateError(`there is no argument for '${whole}'`)
    return str(value, budget)
  })
  budget.make(result.length)
  return result
}
