// Typed access to the keys of a JSON file, so that each wrong value is named with its file, its key and what was expected.

import { describe, ModelError } from './model-error.js'

/** The keys of one JSON object of a file. A key that is null counts as absent, as it does in transformers. */
export class Fields {
  constructor(
    readonly file: string,
    private readonly values: Record<string, unknown>,
    /** What stands before a key in messages when the object lies inside another, such as `rope_parameters.`. */
    private readonly path = '',
  ) {}

  has(key: string): boolean {
    return this.raw(key) !== undefined
  }

  /** True for a key that is there and null, where that means something else than no key. */
  isNull(key: string): boolean {
    return Object.hasOwn(this.values, key) && this.values[key] === null
  }

  /** The value as parsed; undefined when absent or null. Never a key inherited from Object. */
  raw(key: string): unknown {
    return Object.hasOwn(this.values, key) ? (this.values[key] ?? undefined) : undefined
  }

  /** An integer in [min, max]; required when no fallback is given. */
  int(key: string, min: number, max: number, fallback?: number): number {
    const value = this.raw(key) ?? fallback
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value
    throw this.error(key, `an integer from ${min} to ${max}`)
  }

  /** A finite number in [min, max]; required when no fallback is given. */
  real(key: string, min: number, max: number, fallback?: number): number {
    const value = this.raw(key) ?? fallback
    if (typeof value === 'number' && value >= min && value <= max) return value
    throw this.error(key, `a number from ${min} to ${max}`)
  }

  /** A list of `count` positive numbers; required. */
  reals(key: string, count: number): number[] {
    const value = this.raw(key)
    const positive = (item: unknown) => typeof item === 'number' && item > 0 && Number.isFinite(item)
    if (Array.isArray(value) && value.length === count && value.every(positive)) return value
    throw this.error(key, `a list of ${count} positive numbers`)
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.raw(key) ?? fallback
    if (typeof value === 'boolean') return value
    throw this.error(key, 'true or false')
  }

  /** A string, or undefined when absent. */
  text(key: string): string | undefined {
    const value = this.raw(key)
    if (value === undefined || typeof value === 'string') return value
    throw this.error(key, 'a string')
  }

  /** The same object with other values for keys that it does not have. */
  withDefaults(defaults: Record<string, unknown>): Fields {
    return new Fields(this.file, { ...defaults, ...this.values }, this.path)
  }

  /** The same object without some keys. */
  without(...keys: string[]): Fields {
    const kept = Object.entries(this.values).filter(([key]) => !keys.includes(key))
    return new Fields(this.file, Object.fromEntries(kept), this.path)
  }

  /** A nested object, or undefined when absent. */
  object(key: string): Fields | undefined {
    const value = this.raw(key)
    if (value === undefined) return undefined
    if (isObject(value)) return new Fields(this.file, value, `${this.path}${key}.`)
    throw this.error(key, 'an object')
  }

  /** A list of objects; empty when absent. */
  objects(key: string): Fields[] {
    const value = this.raw(key) ?? []
    if (!Array.isArray(value)) throw this.error(key, 'a list')
    return value.map((item, index) => {
      if (isObject(item)) return new Fields(this.file, item, `${this.path}${key}[${index}].`)
      throw this.error(key, 'a list of objects')
    })
  }

  /** One token id or a list of them; undefined when absent. */
  tokenIds(key: string): number[] | undefined {
    const value = this.raw(key)
    if (value === undefined) return undefined
    const ids: unknown[] = Array.isArray(value) ? value : [value]
    if (ids.every((id) => typeof id === 'number' && Number.isSafeInteger(id) && id >= 0)) return ids as number[]
    throw this.error(key, 'a token id or a list of them')
  }

  keys(): string[] {
    return Object.keys(this.values)
  }

  /** The error of a value that is not what was expected. */
  error(key: string, expected: string): ModelError {
    const value = this.raw(key)
    const found = value === undefined ? 'no such key' : describe(value)
    return new ModelError(`${this.file}: ${this.path}${key}: expected ${expected}, found ${found}`)
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
