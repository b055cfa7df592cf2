// Attributes of values: the methods of Python's str, dict, list, tuple and numbers that templates use.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { formatBraces } from './format.js'
import { equal, refuseUndefined, toInteger } from './operators.js'
import { bind } from './parameters.js'
import { lineEnd, space, trimEnd, trimStart } from './space.js'
import {
  Callable,
  codePoints,
  type Dict,
  Float,
  isDict,
  isList,
  isLoop,
  isPlain,
  itemsOf,
  iterate,
  Namespace,
  Tuple,
  toKey,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

type Method<T> = [parameters: string[], call: (self: T, given: (Value | undefined)[], budget: Budget) => Value]

/** `object.name`: an attribute, else an item. */
export function getAttribute(object: Value, name: string, budget: Budget): Value {
  refuseUndefined(object)
  const found = attribute(object, name, budget)
  return orMissing(found === undefined ? item(object, name, budget) : found, object, name)
}

/** `object[key]`: an item, else an attribute. */
export function getItem(object: Value, key: Value, budget: Budget): Value {
  refuseUndefined(object)
  const found = item(object, key, budget)
  return orMissing(found === undefined && typeof key === 'string' ? attribute(object, key, budget) : found, object, key)
}

/** What was found, which may be None, or what says that nothing was. */
function orMissing(found: Value | undefined, object: Value, key: Value): Value {
  if (found !== undefined) return found
  const type = object === null ? 'None' : `${typeName(object)} object`
  return new Undefined(
    typeof key === 'string' ? `'${type}' has no attribute '${key}'` : `${type} has no element ${String(key)}`,
  )
}

function item(object: Value, key: Value, budget: Budget): Value | undefined {
  if (isDict(object)) return key instanceof Undefined ? undefined : object.get(toKey(key))
  if (typeof key !== 'number' && typeof key !== 'boolean') return undefined
  const index = Number(key)
  if (typeof object === 'string') return characters(object, budget).at(index)
  const items = object instanceof View && object.name !== 'range' ? null : itemsOf(object)
  return items?.at(index)
}

function attribute(object: Value, name: string, budget: Budget): Value | undefined {
  if (isLoop(object)) return object.loopAttribute(name)
  if (object instanceof Namespace) return object.attributes.get(name)
  const table = isDict(object)
    ? dictMethods
    : typeof object === 'string'
      ? textMethods
      : isList(object) || object instanceof Tuple
        ? listMethods
        : object instanceof Float
          ? floatMethods
          : undefined
  const unsafe =
    name.startsWith('__') || (isDict(object) && changesDict.has(name)) || (isList(object) && changesList.has(name))
  if (unsafe) return new Undefined(`access to attribute '${name}' of '${typeName(object)}' object is unsafe.`)
  const method = table?.[name] as Method<Value> | 'format' | undefined
  if (method === undefined) return undefined
  if (method === 'format') return new Callable(name, (given) => formatBraces(object as string, given, budget))
  const [parameters, call] = method
  return new Callable(name, (given) => call(object, bind(name, parameters, given), budget))
}

const changesDict = new Set(['clear', 'pop', 'popitem', 'setdefault', 'update'])
const changesList = new Set(['append', 'clear', 'pop', 'reverse', 'insert', 'sort', 'extend', 'remove'])

// ---- dict, list, tuple, float

const dictMethods: Record<string, Method<ReadonlyMap<string | number | null, Value>>> = table({
  get: [
    ['key!', 'default'],
    (self, [key = null, otherwise = null], budget) => {
      const found = item(self, key, budget)
      return found === undefined ? otherwise : found
    },
  ],
  keys: [[], (self, _, budget) => new View('dict_keys', counted([...self.keys()], budget))],
  values: [[], (self, _, budget) => new View('dict_values', counted([...self.values()], budget))],
  items: [[], (self, _, budget) => new View('dict_items', dictItems(self, budget))],
  copy: [[], (self) => self],
})

/** (key, value) tuples. */
export function dictItems(dict: Dict, budget: Budget): Tuple[] {
  budget.makeItems(3 * dict.size)
  return Array.from(dict, (entry) => new Tuple(entry))
}

const listMethods: Record<string, Method<readonly Value[] | Tuple>> = table({
  index: [
    ['value!'],
    (self, [value], budget) => {
      const index = itemsOf(self)?.findIndex((candidate) => equal(candidate, value ?? null, budget)) ?? -1
      if (index < 0) throw new TemplateError('the value is not in the list')
      return index
    },
  ],
  count: [
    ['value!'],
    (self, [value], budget) =>
      itemsOf(self)?.filter((candidate) => equal(candidate, value ?? null, budget)).length ?? 0,
  ],
  copy: [[], (self) => self],
})

const floatMethods: Record<string, Method<Float>> = table({
  is_integer: [[], (self) => Number.isInteger(self.value)],
})

// ---- str

const textMethods: Record<string, Method<string> | 'format'> = table({
  format: 'format',
  upper: [[], (self, _, budget) => made(self.toUpperCase(), budget)],
  lower: [[], (self, _, budget) => made(self.toLowerCase(), budget)],
  capitalize: [[], (self, _, budget) => made(capitalize(self), budget)],
  title: [[], (self, _, budget) => made(title(self), budget)],
  swapcase: [
    [],
    (self, _, budget) =>
      made(
        self.replace(/\p{L}/gu, (c) => (/\p{Lu}/u.test(c) ? c.toLowerCase() : c.toUpperCase())),
        budget,
      ),
  ],
  strip: [['chars'], (self, [chars], budget) => strip(self, chars, 'both', budget)],
  lstrip: [['chars'], (self, [chars], budget) => strip(self, chars, 'left', budget)],
  rstrip: [['chars'], (self, [chars], budget) => strip(self, chars, 'right', budget)],
  split: [['sep', 'maxsplit'], (self, [sep, max], budget) => split(self, sep, max, budget)],
  rsplit: [['sep', 'maxsplit'], (self, [sep, max], budget) => rsplit(self, sep, max, budget)],
  splitlines: [['keepends'], (self, [keep], budget) => splitLines(self, keep === true, budget)],
  partition: [['sep!'], (self, [sep], budget) => partition(self, toText(sep, 'partition'), false, budget)],
  rpartition: [['sep!'], (self, [sep], budget) => partition(self, toText(sep, 'rpartition'), true, budget)],
  join: [
    ['iterable!'],
    (self, [items], budget) => {
      const texts: string[] = []
      for (const one of iterate(items ?? null)) {
        budget.step()
        if (typeof one !== 'string') {
          refuseUndefined(one)
          throw new TemplateError(`sequence item ${texts.length}: expected str instance, ${typeName(one)} found`)
        }
        texts.push(one)
      }
      budget.make(texts.reduce((sum, text) => sum + text.length + self.length, 0))
      return texts.join(self)
    },
  ],
  replace: [
    ['old!', 'new!', 'count'],
    (self, [old, replacement, count], budget) =>
      replace(self, toText(old, 'replace'), toText(replacement, 'replace'), integerOr(count, -1), budget),
  ],
  startswith: [['prefix!', 'start', 'end'], (self, given, budget) => affix(self, given, 'startsWith', budget)],
  endswith: [['suffix!', 'start', 'end'], (self, given, budget) => affix(self, given, 'endsWith', budget)],
  removeprefix: [
    ['prefix!'],
    (self, [prefix], budget) => {
      const text = toText(prefix, 'removeprefix')
      budget.read(text.length)
      return self.startsWith(text) ? self.slice(text.length) : self
    },
  ],
  removesuffix: [
    ['suffix!'],
    (self, [suffix], budget) => {
      const text = toText(suffix, 'removesuffix')
      budget.read(text.length)
      return text !== '' && self.endsWith(text) ? self.slice(0, -text.length) : self
    },
  ],
  find: [['sub!', 'start', 'end'], (self, given, budget) => find(self, given, false, budget)],
  rfind: [['sub!', 'start', 'end'], (self, given, budget) => find(self, given, true, budget)],
  index: [['sub!', 'start', 'end'], (self, given, budget) => mustFind(find(self, given, false, budget))],
  rindex: [['sub!', 'start', 'end'], (self, given, budget) => mustFind(find(self, given, true, budget))],
  count: [
    ['sub!'],
    (self, [sub], budget) => {
      const text = toText(sub, 'count')
      budget.search(self.length, text.length)
      return text === '' ? codePoints(self) + 1 : self.split(text).length - 1
    },
  ],
  center: [
    ['width!', 'fillchar'],
    (self, [width, fill], budget) => {
      const room = toInteger(width ?? null) - codePoints(self)
      // The odd one goes to the left where the width is odd too.
      const left = Math.floor(room / 2) + (room & toInteger(width ?? null) & 1)
      return pad(self, left, room - left, fill, budget)
    },
  ],
  ljust: [
    ['width!', 'fillchar'],
    (self, [width, fill], budget) => pad(self, 0, toInteger(width ?? null) - codePoints(self), fill, budget),
  ],
  rjust: [
    ['width!', 'fillchar'],
    (self, [width, fill], budget) => pad(self, toInteger(width ?? null) - codePoints(self), 0, fill, budget),
  ],
  zfill: [
    ['width!'],
    (self, [width], budget) => {
      const sign = /^[-+]/.exec(self)?.[0] ?? ''
      return sign + pad(self.slice(sign.length), toInteger(width ?? null) - codePoints(self), 0, '0', budget)
    },
  ],
  isspace: is(new RegExp(`^[${space}]+$`)),
  isdigit: is(/^(?:\p{Nd}|[²³¹⁰⁴-⁹₀-₉])+$/u),
  isdecimal: is(/^\p{Nd}+$/u),
  isnumeric: is(/^\p{N}+$/u),
  isalpha: is(/^\p{L}+$/u),
  isalnum: is(/^[\p{L}\p{N}]+$/u),
  isascii: is(/^[\0-\x7f]*$/),
  isupper: is(/\p{Lu}/u, /\p{Ll}/u),
  islower: is(/\p{Ll}/u, /\p{Lu}/u),
})

/** An object without inherited names, so that no attribute comes from JavaScript. */
function table<T extends object>(entries: T): T {
  return Object.assign(Object.create(null), entries)
}

/** Whether a text has a pattern, and another not. */
function is(pattern: RegExp, not?: RegExp): Method<string> {
  return [
    [],
    (self, _, budget) => {
      budget.read(self.length)
      return pattern.test(self) && !not?.test(self)
    },
  ]
}

function made(text: string, budget: Budget): string {
  budget.make(text.length)
  return text
}

function toText(value: Value | undefined, method: string): string {
  if (typeof value === 'string') return value
  refuseUndefined(value ?? null)
  throw new TemplateError(`${method}() argument must be str, not ${typeName(value ?? null)}`)
}

function integerOr(value: Value | undefined, otherwise: number): number {
  return value === undefined || value === null ? otherwise : toInteger(value)
}

export function capitalize(text: string): string {
  const [first = ''] = text
  return first.toUpperCase() + text.slice(first.length).toLowerCase()
}

/** Each letter that follows no letter in upper case, the others in lower case. */
function title(text: string): string {
  return text.replace(/\p{L}+/gu, capitalize)
}

/** str.strip, lstrip and rstrip */
export function strip(text: string, chars: Value | undefined, side: 'left' | 'right' | 'both', budget: Budget): string {
  budget.read(text.length)
  if (chars === undefined || chars === null) {
    const rest = side === 'right' ? text : trimStart(text)
    return side === 'left' ? rest : trimEnd(rest)
  }
  const set = new Set(toText(chars, 'strip'))
  const units = characters(text, budget)
  let start = 0
  let end = units.length
  if (side !== 'right') while (start < end && set.has(units[start] ?? '')) start++
  if (side !== 'left') while (end > start && set.has(units[end - 1] ?? '')) end--
  return typeof units === 'string' ? units.slice(start, end) : units.slice(start, end).join('')
}

function split(text: string, sep: Value | undefined, max: Value | undefined, budget: Budget): Value {
  budget.make(text.length)
  const limit = integerOr(max, -1)
  if (sep === undefined || sep === null) {
    const words: string[] = []
    const rest = trimStart(text)
    const word = new RegExp(`([^${space}]+)(?:[${space}]+|$)`, 'y')
    let position = 0
    while (position < rest.length) {
      if (limit >= 0 && words.length >= limit) {
        return [...words, rest.slice(position)]
      }
      word.lastIndex = position
      words.push(word.exec(rest)?.[1] ?? '')
      position = word.lastIndex
    }
    budget.makeItems(words.length)
    return words
  }
  const separator = toText(sep, 'split')
  if (separator === '') throw new TemplateError('empty separator')
  budget.search(text.length, separator.length)
  const parts = text.split(separator)
  budget.makeItems(parts.length)
  if (limit < 0 || parts.length <= limit) return parts
  return [...parts.slice(0, limit), parts.slice(limit).join(separator)]
}

function rsplit(text: string, sep: Value | undefined, max: Value | undefined, budget: Budget): Value {
  const limit = integerOr(max, -1)
  if (limit < 0) return split(text, sep, max, budget)
  if (sep === undefined || sep === null) throw new TemplateError('rsplit() needs a separator here')
  const separator = toText(sep, 'rsplit')
  if (separator === '') throw new TemplateError('empty separator')
  budget.make(text.length)
  budget.search(text.length, separator.length)
  const parts: string[] = []
  let end = text.length
  while (parts.length < limit) {
    const at = end >= separator.length ? text.lastIndexOf(separator, end - separator.length) : -1
    if (at < 0) break
    budget.step()
    parts.unshift(text.slice(at + separator.length, end))
    end = at
  }
  return [text.slice(0, end), ...parts]
}

const lineEnds = new RegExp(lineEnd, 'g')

/** str.splitlines */
export function splitLines(text: string, keepEnds: boolean, budget: Budget): string[] {
  budget.make(text.length)
  const lines: string[] = []
  let start = 0
  for (const { 0: end, index } of text.matchAll(lineEnds)) {
    lines.push(text.slice(start, index + (keepEnds ? end.length : 0)))
    start = index + end.length
  }
  if (start < text.length) lines.push(text.slice(start))
  budget.makeItems(lines.length)
  return lines
}

function partition(text: string, separator: string, fromRight: boolean, budget: Budget): Value {
  if (separator === '') throw new TemplateError('empty separator')
  budget.make(text.length)
  budget.search(text.length, separator.length)
  const at = fromRight ? text.lastIndexOf(separator) : text.indexOf(separator)
  if (at < 0) return new Tuple(fromRight ? ['', '', text] : [text, '', ''])
  return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)])
}

/** str.replace; a negative count is all */
export function replace(text: string, old: string, replacement: string, count: number, budget: Budget): string {
  budget.search(text.length, old.length)
  const parts = old === '' ? ['', ...text, ''] : text.split(old)
  const times = Math.min(count < 0 ? Number.POSITIVE_INFINITY : count, parts.length - 1)
  budget.make(text.length + times * replacement.length)
  if (times === parts.length - 1) return parts.join(replacement)
  return parts.slice(0, times + 1).join(replacement) + (old === '' ? '' : old) + parts.slice(times + 1).join(old)
}

function affix(
  self: string,
  [given, start, end]: (Value | undefined)[],
  method: 'startsWith' | 'endsWith',
  budget: Budget,
): boolean {
  const text = section(self, start, end, budget)
  const candidates = given instanceof Tuple ? given.items : [given ?? null]
  return candidates.some((candidate) => {
    const affix = toText(candidate, method.toLowerCase())
    budget.read(64 + affix.length)
    return text[method](affix)
  })
}

/** self[start:end] */
function section(self: string, start: Value | undefined, end: Value | undefined, budget: Budget): string {
  if (start === undefined && end === undefined) return self
  const from = integerOr(start, 0)
  const to = integerOr(end, Number.MAX_SAFE_INTEGER)
  const units = characters(self, budget).slice(from, to)
  return typeof units === 'string' ? units : units.join('')
}

function find(self: string, [sub, start, end]: (Value | undefined)[], last: boolean, budget: Budget): number {
  const text = section(self, start, end, budget)
  const needle = toText(sub, 'find')
  budget.search(text.length, needle.length)
  const at = last ? text.lastIndexOf(needle) : text.indexOf(needle)
  if (at < 0) return -1
  const from = integerOr(start, 0)
  return codePoints(text.slice(0, at)) + (from < 0 ? Math.max(0, codePoints(self) + from) : from)
}

/** A text by its characters: itself, where each UTF-16 unit is one. */
function characters(text: string, budget: Budget): string | string[] {
  budget.read(text.length)
  return isPlain(text) ? text : counted(Array.from(text), budget)
}

function counted<T>(items: T[], budget: Budget): T[] {
  budget.makeItems(items.length)
  return items
}

function mustFind(index: number): number {
  if (index < 0) throw new TemplateError('substring not found')
  return index
}

function pad(text: string, left: number, right: number, fill: Value | undefined, budget: Budget): string {
  const char = fill === undefined ? ' ' : toText(fill, 'fill')
  if (codePoints(char) !== 1) throw new TemplateError('The fill character must be exactly one character long')
  const [before, after] = [Math.max(0, left), Math.max(0, right)]
  budget.make(text.length + 2 * (before + after))
  return char.repeat(before) + text + char.repeat(after)
}

/** `object[start:stop:step]` */
export function slice(object: Value, bounds: (Value | null)[], budget: Budget): Value {
  refuseUndefined(object)
  const [start = null, stop = null, stepValue = null] = bounds.map((bound) =>
    bound === null || bound === undefined ? null : toInteger(bound),
  )
  const step = stepValue ?? 1
  if (step === 0) throw new TemplateError('slice step cannot be zero')
  const range = object instanceof View && object.name === 'range'
  const items =
    typeof object === 'string'
      ? characters(object, budget)
      : isList(object) || object instanceof Tuple || range
        ? (itemsOf(object) as readonly Value[])
        : null
  if (items === null) throw new TemplateError(`'${typeName(object)}' object is not subscriptable`)
  const { length } = items
  const clamp = (bound: number, low: number, high: number) =>
    bound < 0 ? Math.max(bound + length, low) : Math.min(bound, high)
  const from =
    start === null ? (step > 0 ? 0 : length - 1) : clamp(start, step > 0 ? 0 : -1, step > 0 ? length : length - 1)
  const to = stop === null ? (step > 0 ? length : -1) : clamp(stop, step > 0 ? 0 : -1, step > 0 ? length : length - 1)
  const count = Math.max(0, Math.ceil((to - from) / step))
  if (typeof items === 'string' && step === 1) return made(items.slice(from, from + count), budget)
  if (typeof object === 'string') budget.make(count)
  budget.makeItems(count)
  const result = Array.from({ length: count }, (_, i) => items[from + i * step] as Value)
  if (typeof object === 'string') return result.join('')
  if (object instanceof Tuple) return new Tuple(result)
  return range ? new View('range', result) : result
}
