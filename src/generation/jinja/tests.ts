// Jinja's tests: what stands behind `is`.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { compare, equal, refuseUndefined } from './operators.js'
import { bind } from './parameters.js'
import { str } from './show.js'
import type { CompareOperator } from './syntax.js'
import {
  type Arguments,
  Callable,
  Float,
  isDict,
  isList,
  isLoop,
  Markup,
  numberOf,
  Stream,
  Tuple,
  Undefined,
  type Value,
  View,
} from './values.js'

type Test = [parameters: string[], holds: (value: Value, given: Value[], budget: Budget) => boolean]

/** Whether `value is name(given)`. @throws TemplateError for a test that Jinja does not have */
export function runTest(name: string, value: Value, given: Arguments, budget: Budget): boolean {
  const test = tests[name]
  if (test === undefined) throw new TemplateError(`No test named '${name}'.`)
  const [parameters, holds] = test
  return holds(value, bind(name, parameters, given) as Value[], budget)
}

const order = (operator: CompareOperator): Test => [
  ['other!'],
  (value, [other], budget) => compare(operator, value, other as Value, budget),
]

const remainder = (value: Value, divisor: Value): number => {
  refuseUndefined(value, divisor)
  const [a, b] = [numberOf(value), numberOf(divisor)]
  if (a === null || b === null) throw new TemplateError('not all arguments converted during string formatting')
  if (b === 0) throw new TemplateError('integer modulo by zero')
  return Math.abs(a % b)
}

const isCased = (value: Value, budget: Budget, has: RegExp, hasNot: RegExp): boolean => {
  const text = str(value, budget)
  budget.read(text.length)
  return has.test(text) && !hasNot.test(text)
}

const tests: Record<string, Test> = Object.assign(Object.create(null), {
  defined: [[], (value) => !(value instanceof Undefined)],
  undefined: [[], (value) => value instanceof Undefined],
  none: [[], (value) => value === null],
  boolean: [[], (value) => typeof value === 'boolean'],
  true: [[], (value) => value === true],
  false: [[], (value) => value === false],
  integer: [[], (value) => typeof value === 'number'],
  float: [[], (value) => value instanceof Float],
  number: [[], (value) => numberOf(value) !== null],
  string: [[], (value) => typeof value === 'string' || value instanceof Markup],
  mapping: [[], isDict],
  sequence: [
    [],
    (value) =>
      typeof value === 'string' ||
      isList(value) ||
      isDict(value) ||
      value instanceof Tuple ||
      (value instanceof View && value.name === 'range'),
  ],
  iterable: [
    [],
    (value) =>
      typeof value === 'string' ||
      isList(value) ||
      isDict(value) ||
      isLoop(value) ||
      value instanceof Tuple ||
      value instanceof View ||
      value instanceof Stream ||
      value instanceof Undefined,
  ],
  callable: [[], (value) => value instanceof Callable || value instanceof Undefined],
  odd: [[], (value) => remainder(value, 2) === 1],
  even: [[], (value) => remainder(value, 2) === 0],
  divisibleby: [['num!'], (value, [num]) => remainder(value, num as Value) === 0],
  lower: [[], (value, _, budget) => isCased(value, budget, /\p{Ll}/u, /\p{Lu}/u)],
  upper: [[], (value, _, budget) => isCased(value, budget, /\p{Lu}/u, /\p{Ll}/u)],
  sameas: [
    ['other!'],
    (value, [other], budget) =>
      typeof value === 'object' && value !== null
        ? value === other
        : typeof value === typeof other && equal(value, other as Value, budget),
  ],
  in: [['seq!'], (value, [seq], budget) => compare('in', value, seq as Value, budget)],
  escaped: [[], (value) => value instanceof Markup],
  '==': order('=='),
  eq: order('=='),
  equalto: order('=='),
  '!=': order('!='),
  ne: order('!='),
  '>': order('>'),
  gt: order('>'),
  greaterthan: order('>'),
  '>=': order('>='),
  ge: order('>='),
  '<': order('<'),
  lt: order('<'),
  lessthan: order('<'),
  '<=': order('<='),
  le: order('<='),
} satisfies Record<string, Test>)
