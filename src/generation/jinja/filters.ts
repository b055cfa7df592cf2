// Jinja's filters, with tojson as transformers defines it.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { formatPercent } from './format.js'
import { capitalize, dictItems, getAttribute, getItem, replace, splitLines, strip } from './methods.js'
import { binary, equal, integer, less, refuseUndefined, toInteger } from './operators.js'
import { bind } from './parameters.js'
import { dumps, str } from './show.js'
import { space, trimEnd, trimStart } from './space.js'
import { runTest } from './tests.js'
import {
  type Arguments,
  Float,
  isDict,
  isTrue,
  itemsOf,
  iterate,
  lengthOf,
  Markup,
  numberOf,
  Stream,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** A filter with parameters that are bound, or one that takes its arguments as they come. */
type Filter =
  | [parameters: string[], apply: (value: Value, given: (Value | undefined)[], budget: Budget) => Value]
  | ((value: Value, given: Arguments, budget: Budget) => Value)

/** @throws TemplateError for a filter that Jinja does not have or that is not supported */
export function applyFilter(name: string, value: Value, given: Arguments, budget: Budget): Value {
  const filter = filters[name]
  if (filter === undefined) {
    const known = unsupported.includes(name)
    throw new TemplateError(known ? `the filter '${name}' is not supported` : `No filter named '${name}'.`)
  }
  if (typeof filter === 'function') return filter(value, given, budget)
  const [parameters, apply] = filter
  return apply(value, bind(name, parameters, given), budget)
}

/** Filters for HTML, of chance, and those whose text nobody needs in a prompt. */
const unsupported = [
  ...['e', 'escape', 'forceescape', 'striptags', 'urlize', 'xmlattr', 'urlencode'],
  ...['random', 'filesizeformat', 'pprint', 'truncate', 'wordwrap'],
]

/** The items of anything that can be looped over, counted. */
function list(value: Value, budget: Budget): Value[] {
  const items: Value[] = []
  for (const item of iterate(value)) {
    budget.step()
    items.push(item)
  }
  budget.makeItems(items.length)
  return items
}

/** An attribute such as 'name', 'address.city' or 0 of an item; undefined is the item itself. */
function getter(attribute: Value | undefined, budget: Budget, otherwise?: Value): (item: Value) => Value {
  if (attribute === undefined || attribute === null) return (item) => item
  const parts = typeof attribute === 'string' ? attribute.split('.') : [toInteger(attribute)]
  return (item) => {
    let value = item
    for (const part of parts) {
      budget.step()
      value = getItem(value, typeof part === 'string' && /^\d+$/.test(part) ? Number(part) : part, budget)
    }
    return value instanceof Undefined && otherwise !== undefined && otherwise !== null ? otherwise : value
  }
}

function foldCase(value: Value, caseSensitive: Value | undefined): Value {
  return typeof value === 'string' && !isTrue(caseSensitive ?? false) ? value.toLowerCase() : value
}

/** Sorted by keys; items with equal keys keep their order, in reverse too. */
function sorted(items: Value[], key: (item: Value) => Value, reverse: boolean, budget: Budget): Value[] {
  const keyed = items.map((item) => [key(item), item] as const)
  keyed.sort(([a], [b]) => {
    const result = less(a, b, budget) ? -1 : less(b, a, budget) ? 1 : 0
    return reverse ? -result : result
  })
  return keyed.map(([, item]) => item)
}

function extreme(sign: 1 | -1): Filter {
  return [
    ['case_sensitive', 'attribute'],
    (value, [caseSensitive, attribute], budget) => {
      const get = getter(attribute, budget)
      const key = (item: Value) => foldCase(get(item), caseSensitive)
      const items = list(value, budget)
      let best = items[0]
      if (best === undefined) return new Undefined('No aggregated item, sequence was empty.')
      for (const item of items.slice(1)) {
        const better = sign > 0 ? less(key(best), key(item), budget) : less(key(item), key(best), budget)
        if (better) best = item
      }
      return best
    },
  ]
}

/** Items for which a test holds, or does not. */
function select(keep: boolean, byAttribute: boolean): Filter {
  return (value, { args, kwargs }, budget) => {
    const rest = [...args]
    if (byAttribute && rest.length === 0) throw new TemplateError('Missing parameter for attribute name')
    const get = getter(byAttribute ? rest.shift() : undefined, budget)
    const name = rest.shift()
    const holds = (item: Value) =>
      name === undefined ? isTrue(get(item)) : runTest(str(name, budget), get(item), { args: rest, kwargs }, budget)
    return stream(value, budget, function* (items) {
      for (const item of items) if (holds(item) === keep) yield item
    })
  }
}

/** A generator over the items of a value, which is nothing for a false one. */
function stream(value: Value, budget: Budget, make: (items: Iterable<Value>) => Iterable<Value>): Stream {
  function* counted() {
    if (!isTrue(value)) return
    for (const item of iterate(value)) {
      budget.step()
      yield item
    }
  }
  return new Stream(make(counted()))
}

function toNumber(value: Value): number {
  refuseUndefined(value)
  const number = numberOf(value)
  if (number === null) throw new TemplateError(`must be real number, not ${typeName(value)}`)
  return number
}

const length: Filter = [
  [],
  (value, _, budget) => {
    if (typeof value === 'string') budget.read(value.length)
    return lengthOf(value)
  },
]

const defaultValue: Filter = [
  ['default_value', 'boolean'],
  (value, [otherwise = '', boolean = false]) =>
    value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? otherwise : value,
]

/** Characters of a text that may be a number. */
const longestNumber = 1000

/** A number in a text, as Python's float() reads it; null where there is none. */
function parseFloatText(text: string): number | null {
  if (text.length > longestNumber) throw new TemplateError(`a number of ${text.length} characters is too long`)
  const trimmed = trimEnd(trimStart(text)).replace(/(?<=\d)_(?=\d)/g, '')
  if (/^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i.test(trimmed)) return Number(trimmed)
  const named = /^([-+]?)(inf|infinity|nan)$/i.exec(trimmed)
  if (named === null) return null
  if (named[2]?.toLowerCase() === 'nan') return Number.NaN
  return named[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY
}

const filters: Record<string, Filter> = Object.assign(Object.create(null), {
  abs: [
    [],
    (value) => {
      refuseUndefined(value)
      const number = numberOf(value)
      if (number === null) throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`)
      return value instanceof Float ? new Float(Math.abs(number)) : Math.abs(number)
    },
  ],
  attr: [['name!'], (value, [name], budget) => getAttribute(value, str(name ?? null, budget), budget)],
  batch: [
    ['linecount!', 'fill_with'],
    (value, [linecount, fill = null], budget) => {
      const size = toInteger(linecount ?? null)
      const items = list(value, budget)
      const rows: Value[][] = []
      for (const item of items) {
        const row = rows.at(-1)
        if (row !== undefined && row.length !== size) row.push(item)
        else rows.push([item])
      }
      const last = rows.at(-1)
      if (fill !== null && last !== undefined && last.length < size) {
        budget.makeItems(size - last.length)
        while (last.length < size) last.push(fill)
      }
      return new Stream(rows)
    },
  ],
  capitalize: [[], (value, _, budget) => made(capitalize(str(value, budget)), budget)],
  center: [['width'], (value, [width = 80], budget) => callMethod(str(value, budget), 'center', [width], budget)],
  count: length,
  d: defaultValue,
  default: defaultValue,
  dictsort: [
    ['case_sensitive', 'by', 'reverse'],
    (value, [caseSensitive, by = 'key', reverse = false], budget) => {
      if (by !== 'key' && by !== 'value') throw new TemplateError('You can only sort by either "key" or "value"')
      if (!isDict(value)) throw new TemplateError(`'${typeName(value)}' object has no attribute 'items'`)
      const entries = dictItems(value, budget)
      const key = (entry: Value) => foldCase((entry as Tuple).items[by === 'key' ? 0 : 1] ?? null, caseSensitive)
      return sorted(entries, key, isTrue(reverse), budget)
    },
  ],
  first: [
    [],
    (value) => {
      const { done, value: item } = iterate(value)[Symbol.iterator]().next()
      return done ? new Undefined('No first item, sequence was empty.') : item
    },
  ],
  float: [
    ['default'],
    (value, [otherwise = new Float(0)]) => {
      refuseUndefined(value)
      const number = typeof value === 'string' ? parseFloatText(value) : numberOf(value)
      return number === null ? otherwise : new Float(number)
    },
  ],
  format: (value, { args, kwargs }, budget) => {
    if (args.length > 0 && kwargs.size > 0) {
      throw new TemplateError("can't handle positional and keyword arguments at the same time")
    }
    return formatPercent(str(value, budget), kwargs.size > 0 ? kwargs : new Tuple(args), budget)
  },
  groupby: [
    ['attribute!', 'default', 'case_sensitive'],
    (value, [attribute, otherwise, caseSensitive], budget) => {
      const get = getter(attribute, budget, otherwise)
      const key = (item: Value) => foldCase(get(item), caseSensitive)
      const groups: { key: Value; items: Value[] }[] = []
      for (const item of sorted(list(value, budget), key, false, budget)) {
        const last = groups.at(-1)
        if (last !== undefined && equal(last.key, key(item), budget)) last.items.push(item)
        else groups.push({ key: key(item), items: [item] })
      }
      return groups.map(({ items }) => new Tuple([get(items[0] ?? null), items]))
    },
  ],
  indent: [
    ['width', 'first', 'blank'],
    (value, [width = 4, first = false, blank = false], budget) => {
      refuseUndefined(value)
      if (typeof value !== 'string') throw new TemplateError(`'${typeName(value)}' has no lines to indent`)
      const lines = splitLines(`${value}\n`, false, budget)
      const size = typeof width === 'string' ? width.length : Math.max(0, toInteger(width))
      budget.make((lines.length + 1) * size)
      const indention = typeof width === 'string' ? width : ' '.repeat(size)
      const rest = lines.slice(1).map((line) => (line === '' && !isTrue(blank) ? line : indention + line))
      return (isTrue(first) ? indention : '') + [lines[0] ?? '', ...rest].join('\n')
    },
  ],
  int: [
    ['default', 'base'],
    (value, [otherwise = 0, base = 10]) => {
      refuseUndefined(value)
      if (typeof value !== 'string') {
        const number = numberOf(value)
        return number === null || !Number.isFinite(number) ? otherwise : integer(Math.trunc(number))
      }
      if (base !== 10) throw new TemplateError("the filter 'int' is supported with base 10 only")
      const number = parseFloatText(value)
      return number === null || !Number.isFinite(number) ? otherwise : integer(Math.trunc(number))
    },
  ],
  items: [
    [],
    (value, _, budget) => {
      if (value instanceof Undefined) return new Stream([])
      if (!isDict(value)) throw new TemplateError('Can only get item pairs from a mapping.')
      return new Stream(dictItems(value, budget))
    },
  ],
  join: [
    ['d', 'attribute'],
    (value, [delimiter = '', attribute], budget) => {
      const between = str(delimiter, budget)
      const texts = list(value, budget)
        .map(getter(attribute, budget))
        .map((item) => str(item, budget))
      budget.make(texts.reduce((sum, text) => sum + text.length + between.length, 0))
      return texts.join(between)
    },
  ],
  last: [
    [],
    (value, _, budget) => {
      const empty = new Undefined('No last item, sequence was empty.')
      if (typeof value === 'string') return /.$/su.exec(value.slice(-2))?.[0] ?? empty
      const items = isDict(value) ? list(value, budget) : value instanceof Undefined ? [] : itemsOf(value)
      if (items === null) throw new TemplateError(`'${typeName(value)}' object is not reversible`)
      return items.length === 0 ? empty : (items.at(-1) ?? null)
    },
  ],
  length,
  list: [[], (value, _, budget) => list(value, budget)],
  lower: [[], (value, _, budget) => made(str(value, budget).toLowerCase(), budget)],
  map: (value, { args, kwargs }, budget) => {
    if (args.length === 0 && kwargs.has('attribute')) {
      const other = [...kwargs.keys()].find((name) => name !== 'attribute' && name !== 'default')
      if (other !== undefined) throw new TemplateError(`Unexpected keyword argument '${other}'`)
      const get = getter(kwargs.get('attribute'), budget, kwargs.get('default'))
      return stream(value, budget, function* (items) {
        for (const item of items) yield get(item)
      })
    }
    const [name, ...rest] = args
    if (name === undefined) throw new TemplateError('map requires a filter argument')
    return stream(value, budget, function* (items) {
      for (const item of items) yield applyFilter(str(name, budget), item, { args: rest, kwargs }, budget)
    })
  },
  max: extreme(1),
  min: extreme(-1),
  reject: select(false, false),
  rejectattr: select(false, true),
  replace: [
    ['old!', 'new!', 'count'],
    (value, [old, replacement, count], budget) =>
      replace(
        str(value, budget),
        str(old ?? null, budget),
        str(replacement ?? null, budget),
        count === undefined || count === null ? -1 : toInteger(count),
        budget,
      ),
  ],
  reverse: [
    [],
    (value, _, budget) => {
      if (typeof value === 'string') return list(value, budget).reverse().join('')
      return new Stream(list(value, budget).reverse())
    },
  ],
  round: [
    ['precision', 'method'],
    (value, [precision = 0, method = 'common'], budget) => {
      const number = toNumber(value)
      const digits = toInteger(precision)
      if (method === 'ceil' || method === 'floor') {
        const scale = 10 ** digits
        const rounded = Math[method](number * scale)
        return scale === 1 && !(value instanceof Float) ? binary('/', rounded, 1, budget) : new Float(rounded / scale)
      }
      if (method !== 'common') throw new TemplateError('method must be common, ceil or floor')
      if (digits < 0 || digits > 15) throw new TemplateError("the filter 'round' is supported with 0 to 15 digits")
      return value instanceof Float ? new Float(roundHalfEven(number, digits)) : number
    },
  ],
  safe: [[], (value, _, budget) => new Markup(str(value, budget))],
  select: select(true, false),
  selectattr: select(true, true),
  slice: [
    ['slices!', 'fill_with'],
    (value, [slices, fill = null], budget) => {
      const items = list(value, budget)
      const count = toInteger(slices ?? null)
      if (count <= 0) throw new TemplateError('the number of slices must be positive')
      budget.makeItems(count)
      const size = Math.floor(items.length / count)
      const larger = items.length % count
      let start = 0
      return new Stream(
        Array.from({ length: count }, (_, i) => {
          const end = start + size + (i < larger ? 1 : 0)
          const part = items.slice(start, end)
          start = end
          return fill !== null && i >= larger ? [...part, fill] : part
        }),
      )
    },
  ],
  sort: [
    ['reverse', 'case_sensitive', 'attribute'],
    (value, [reverse = false, caseSensitive, attribute], budget) => {
      const parts = typeof attribute === 'string' ? attribute.split(',') : [attribute]
      const getters = parts.map((part) => getter(part, budget))
      const key = (item: Value) => {
        const keys = getters.map((get) => foldCase(get(item), caseSensitive))
        return keys.length === 1 ? (keys[0] ?? null) : keys
      }
      return sorted(list(value, budget), key, isTrue(reverse), budget)
    },
  ],
  string: [[], (value, _, budget) => str(value, budget)],
  sum: [
    ['attribute', 'start'],
    (value, [attribute, start = 0], budget) =>
      list(value, budget)
        .map(getter(attribute, budget))
        .reduce((sum, item) => {
          if (typeof sum === 'string') throw new TemplateError("sum() can't sum strings [use ''.join(seq) instead]")
          return binary('+', sum, item, budget)
        }, start),
  ],
  title: [
    [],
    (value, _, budget) => {
      const words = str(value, budget).split(wordStarts)
      return made(words.map(capitalize).join(''), budget)
    },
  ],
  tojson: [
    ['ensure_ascii', 'indent', 'separators', 'sort_keys'],
    (value, [ensureAscii = false, indent = null, separators = null, sortKeys = false], budget) => {
      const pair = separators === null ? null : itemsOf(separators)
      if (separators !== null && (pair?.length !== 2 || pair.some((part) => typeof part !== 'string'))) {
        throw new TemplateError('separators must be two texts')
      }
      const spaces = indent === null || typeof indent === 'string' ? indent : toInteger(indent)
      if (typeof spaces === 'number') budget.make(Math.max(0, spaces))
      const [item = indent === null ? ', ' : ',', key = ': '] = (pair ?? []) as string[]
      const style = {
        ensureAscii: isTrue(ensureAscii),
        indent: typeof spaces === 'number' ? ' '.repeat(Math.max(0, spaces)) : spaces,
        itemSeparator: item,
        keySeparator: key,
        sortKeys: isTrue(sortKeys),
      }
      return dumps(value, style, budget)
    },
  ],
  trim: [['chars'], (value, [chars], budget) => strip(str(value, budget), chars, 'both', budget)],
  unique: [
    ['case_sensitive', 'attribute'],
    (value, [caseSensitive, attribute], budget) => {
      const get = getter(attribute, budget)
      return new Stream(
        (function* () {
          const seen: Value[] = []
          for (const item of iterate(value)) {
            const key = foldCase(get(item), caseSensitive)
            if (seen.some((other) => equal(other, key, budget))) continue
            seen.push(key)
            yield item
          }
        })(),
      )
    },
  ],
  upper: [[], (value, _, budget) => made(str(value, budget).toUpperCase(), budget)],
  wordcount: [[], (value, _, budget) => made(str(value, budget), budget).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0],
} satisfies Record<string, Filter>)

const wordStarts = new RegExp(`([-${space}({[<]+)`)

function made(text: string, budget: Budget): string {
  budget.make(text.length)
  return text
}

function callMethod(text: string, name: string, args: Value[], budget: Budget): Value {
  const method = getAttribute(text, name, budget)
  return (method as Extract<Value, { call: unknown }>).call({ args, kwargs: new Map() })
}

/** Python's round(): to the nearest, of two the even one, judged by the exact value of the number. */
function roundHalfEven(value: number, digits: number): number {
  if (!Number.isFinite(value) || Math.abs(value) >= 1e15) return value
  if (digits === 0) {
    const floor = Math.floor(value)
    const rest = value - floor
    return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1
  }
  return Number(value.toFixed(digits))
}
