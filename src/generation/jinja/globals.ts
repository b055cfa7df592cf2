// The functions that a template finds: those of Jinja, and raise_exception and strftime_now of transformers.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { toInteger } from './operators.js'
import { bind } from './parameters.js'
import { str } from './show.js'
import { strftime } from './strftime.js'
import {
  type Arguments,
  Callable,
  type DictKey,
  isDict,
  iterate,
  Namespace,
  toKey,
  type Value,
  View,
} from './values.js'

/** The longest range() of Jinja's sandbox. */
const maxRange = 100000

/** @param now the time that strftime_now shows */
export function makeGlobals(budget: Budget, now: () => Date): ReadonlyMap<string, Value> {
  const functions: Record<string, (given: Arguments) => Value> = {
    range: ({ args, kwargs }) => {
      if (kwargs.size > 0) throw new TemplateError('range() takes no keyword arguments')
      if (args.length < 1 || args.length > 3)
        throw new TemplateError(`range expected 1 to 3 arguments, got ${args.length}`)
      const numbers = args.map(toInteger)
      const [start = 0, stop = 0, step = 1] = numbers.length === 1 ? [0, ...numbers] : numbers
      if (step === 0) throw new TemplateError('range() arg 3 must not be zero')
      const length = Math.max(0, Math.ceil((stop - start) / step))
      if (length > maxRange) {
        throw new TemplateError(`Range too big. The sandbox blocks ranges larger than MAX_RANGE (${maxRange}).`)
      }
      budget.makeItems(length)
      return new View(
        'range',
        Array.from({ length }, (_, i) => start + i * step),
      )
    },
    dict: (given) => new Map(entries('dict', given, budget)),
    namespace: (given) =>
      new Namespace(new Map(entries('namespace', given, budget).map(([key, value]) => [String(key), value]))),
    joiner: (given) => {
      const [sep = ', '] = bind('joiner', ['sep'], given)
      let used = false
      return new Callable('joiner', () => {
        if (used) return sep
        used = true
        return ''
      })
    },
    raise_exception: (given) => {
      const [message] = bind('raise_exception', ['message!'], given)
      throw new TemplateError(str(message ?? null, budget))
    },
    strftime_now: (given) => {
      const [format] = bind('strftime_now', ['format!'], given)
      const pattern = str(format ?? null, budget)
      budget.make(32 * pattern.length)
      return strftime(now(), pattern)
    },
  }
  return new Map(Object.entries(functions).map(([name, call]) => [name, new Callable(name, call)]))
}

/** What dict(mapping or pairs, key=value) holds. */
function entries(name: string, { args, kwargs }: Arguments, budget: Budget): [DictKey, Value][] {
  if (args.length > 1) throw new TemplateError(`${name} expected at most 1 argument, got ${args.length}`)
  const [source] = args
  const pairs: [DictKey, Value][] = []
  if (source !== undefined) {
    for (const pair of isDict(source) ? source : iterate(source)) {
      budget.step()
      const [key, value, ...more] = isDict(source) ? (pair as [DictKey, Value]) : iterate(pair as Value)
      if (key === undefined || value === undefined || more.length > 0) {
        throw new TemplateError(`${name} expects pairs of a key and a value`)
      }
      pairs.push([toKey(key), value])
    }
  }
  budget.makeItems(2 * (pairs.length + kwargs.size))
  return [...pairs, ...kwargs]
}
