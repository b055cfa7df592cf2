// Python's values, as templates see them. An integer is a JavaScript number; a list is an array, a dict a Map.

import { TemplateError } from './errors.js'

export type Value =
  | null
  | boolean
  | number
  | string
  | Float
  | Undefined
  | Markup
  | readonly Value[]
  | Tuple
  | Dict
  | View
  | Stream
  | Namespace
  | Callable
  | LoopValue

export type Dict = ReadonlyMap<DictKey, Value>
export type DictKey = string | number | null

/** Python's float: it shows its fraction even if that is zero. */
export class Float {
  constructor(readonly value: number) {}
}

/** What is not there. It can be printed, looped over and asked for its truth; all else fails with the message. */
export class Undefined {
  constructor(readonly message: string) {}
}

/** What the filter `safe` gives: a text to be written as it is. Other texts that join it would be escaped for HTML: that is refused. */
export class Markup {
  constructor(readonly text: string) {}
}

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** dict.keys(), values() and items(), and ranges: sequences that have a length. */
export class View {
  /** @param name of Python's type */
  constructor(
    readonly name: string,
    readonly items: readonly Value[],
  ) {}
}

/** A generator: its items come once, and it has no length. */
export class Stream {
  readonly iterator: Iterator<Value>
  constructor(items: Iterable<Value>) {
    this.iterator = items[Symbol.iterator]()
  }
}

/** namespace(): the one value that a template can change. */
export class Namespace {
  constructor(readonly attributes: Map<string, Value>) {}
}

/** The arguments of a call. */
export interface Arguments {
  args: readonly Value[]
  kwargs: ReadonlyMap<string, Value>
}

export class Callable {
  constructor(
    readonly name: string,
    readonly call: (given: Arguments) => Value,
  ) {}
}

/** `loop`. Its attributes are worked out when they are asked for. */
export interface LoopValue {
  loopAttribute(name: string): Value
}

export function isLoop(value: Value): value is LoopValue {
  return typeof value === 'object' && value !== null && 'loopAttribute' in value
}

export function isList(value: Value): value is readonly Value[] {
  return Array.isArray(value)
}

export function isDict(value: Value): value is Dict {
  return value instanceof Map
}

/** A number of Python's, booleans included; null for other values. */
export function numberOf(value: Value): number | null {
  if (typeof value === 'number') return value
  if (typeof value === 'boolean') return value ? 1 : 0
  return value instanceof Float ? value.value : null
}

/** The name of the type as Python's messages have it. */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType'
  if (typeof value === 'string') return 'str'
  if (typeof value === 'number') return 'int'
  if (typeof value === 'boolean') return 'bool'
  if (value instanceof Float) return 'float'
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Markup) return 'Markup'
  if (isList(value)) return 'list'
  if (value instanceof Tuple) return 'tuple'
  if (isDict(value)) return 'dict'
  if (value instanceof View) return value.name
  if (value instanceof Stream) return 'generator'
  if (value instanceof Namespace) return 'Namespace'
  return value instanceof Callable ? 'function' : 'LoopContext'
}

export function isTrue(value: Value): boolean {
  if (value === null || value instanceof Undefined) return false
  if (typeof value !== 'object') return Boolean(value)
  if (value instanceof Float) return value.value !== 0
  if (value instanceof Markup) return value.text !== ''
  if (isDict(value)) return value.size > 0
  const items = itemsOf(value)
  return items === null || items.length > 0
}

/** The items of what has them at hand: lists, tuples and views. */
export function itemsOf(value: Value): readonly Value[] | null {
  if (isList(value)) return value
  return value instanceof Tuple || value instanceof View ? value.items : null
}

/** @throws TemplateError for what cannot be looped over */
export function iterate(value: Value): Iterable<Value> {
  const items = itemsOf(value)
  if (items !== null) return items
  if (typeof value === 'string') return value
  if (value instanceof Undefined) return []
  if (isDict(value)) return value.keys()
  // Not the iterator's own [Symbol.iterator], which a loop that is left would close.
  if (value instanceof Stream) return { [Symbol.iterator]: () => ({ next: () => value.iterator.next() }) }
  throw new TemplateError(`'${typeName(value)}' object is not iterable`)
}

/** len() @throws TemplateError for what has none */
export function lengthOf(value: Value): number {
  if (typeof value === 'string') return codePoints(value)
  if (value instanceof Undefined) return 0
  if (isDict(value)) return value.size
  const items = itemsOf(value)
  if (items !== null) return items.length
  throw new TemplateError(`object of type '${typeName(value)}' has no len()`)
}

/** Whether each UTF-16 unit of the text is a character. */
export function isPlain(text: string): boolean {
  return !/[\ud800-\udbff][\udc00-\udfff]/.test(text)
}

/** Length in characters, as Python counts. */
export function codePoints(text: string): number {
  if (isPlain(text)) return text.length
  let count = 0
  for (const _ of text) count++
  return count
}

export function toKey(value: Value): DictKey {
  if (typeof value === 'string' || typeof value === 'number' || value === null) return value
  throw new TemplateError(`a key of type '${typeName(value)}' is not supported in a dict`)
}

/** JSON as a template sees it. */
export function fromJson(value: unknown): Value {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : new Float(value)
  if (Array.isArray(value)) return value.map(fromJson)
  const entries = Object.entries(value as object).filter(([, item]) => item !== undefined)
  return new Map(entries.map(([key, item]) => [key, fromJson(item)]))
}
