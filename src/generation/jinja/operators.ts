// Python's operators.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { formatPercent } from './format.js'
import { compareText, str } from './show.js'
import type { BinaryOperator, CompareOperator } from './syntax.js'
import {
  Float,
  isDict,
  isList,
  itemsOf,
  iterate,
  numberOf,
  Stream,
  Tuple,
  toKey,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

/** @throws TemplateError where an integer leaves what JavaScript holds exactly */
export function integer(value: number): number {
  if (Number.isSafeInteger(value)) return value === 0 ? 0 : value
  throw new TemplateError('an integer is too large')
}

/** An integer that a function needs. */
export function toInteger(value: Value): number {
  if (typeof value === 'number') return value
  if (typeof value === 'boolean') return Number(value)
  refuseUndefined(value)
  throw new TemplateError(`'${typeName(value)}' object cannot be interpreted as an integer`)
}

export function refuseUndefined(...values: Value[]): void {
  for (const value of values) if (value instanceof Undefined) throw new TemplateError(value.message)
}

export function negate(value: Value, sign: '-' | '+'): Value {
  refuseUndefined(value)
  const number = numberOf(value)
  if (number === null) throw new TemplateError(`bad operand type for unary ${sign}: '${typeName(value)}'`)
  const result = sign === '-' ? -number : number
  return value instanceof Float ? new Float(result) : integer(result)
}

export function binary(operator: BinaryOperator, left: Value, right: Value, budget: Budget): Value {
  refuseUndefined(left)
  if (operator === '%' && typeof left === 'string') return formatPercent(left, right, budget)
  refuseUndefined(right)
  const [a, b] = [numberOf(left), numberOf(right)]
  if (a !== null && b !== null) {
    return arithmetic(operator, a, b, left instanceof Float || right instanceof Float)
  }
  if (operator === '+') {
    if (typeof left === 'string' && typeof right === 'string') {
      budget.make(left.length + right.length)
      return left + right
    }
    if (isList(left) && isList(right)) return joined(left, right, budget)
    if (left instanceof Tuple && right instanceof Tuple) return new Tuple(joined(left.items, right.items, budget))
    if (typeof left === 'string') {
      throw new TemplateError(`can only concatenate str (not "${typeName(right)}") to str`)
    }
  }
  if (operator === '*') {
    if (typeof right === 'number' || typeof right === 'boolean') return repeated(left, Number(right), budget)
    if (typeof left === 'number' || typeof left === 'boolean') return repeated(right, Number(left), budget)
  }
  throw wrongOperands(operator, left, right)
}

function wrongOperands(operator: string, left: Value, right: Value): TemplateError {
  return new TemplateError(`unsupported operand type(s) for ${operator}: '${typeName(left)}' and '${typeName(right)}'`)
}

function joined(left: readonly Value[], right: readonly Value[], budget: Budget): Value[] {
  budget.makeItems(left.length + right.length)
  return [...left, ...right]
}

function repeated(value: Value, times: number, budget: Budget): Value {
  const count = Math.max(0, times)
  if (typeof value === 'string') {
    budget.make(value.length * count)
    return value.repeat(count)
  }
  const items = isList(value) ? value : value instanceof Tuple ? value.items : null
  if (items === null) throw wrongOperands('*', value, times)
  budget.makeItems(items.length * count)
  const result = Array.from({ length: items.length * count }, (_, i) => items[i % items.length] as Value)
  return value instanceof Tuple ? new Tuple(result) : result
}

function arithmetic(operator: BinaryOperator, a: number, b: number, isFloat: boolean): Value {
  const result = (value: number) => (isFloat ? new Float(value) : integer(value))
  switch (operator) {
    case '+':
      return result(a + b)
    case '-':
      return result(a - b)
    case '*':
      return result(a * b)
    case '/':
      if (b === 0) throw new TemplateError(isFloat ? 'float division by zero' : 'division by zero')
      return new Float(a / b)
    case '//':
      if (b === 0) throw new TemplateError('integer division or modulo by zero')
      return result((a - modulo(a, b)) / b)
    case '%':
      if (b === 0) throw new TemplateError('integer modulo by zero')
      return result(modulo(a, b))
    case '**': {
      if (a === 0 && b < 0) throw new TemplateError('0.0 cannot be raised to a negative power')
      const power = a ** b
      if (!Number.isFinite(power)) throw new TemplateError('a power is too large or no real number')
      return b < 0 ? new Float(power) : result(power)
    }
  }
}

/** The remainder with the sign of the divisor. */
function modulo(a: number, b: number): number {
  const rest = a % b
  return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest
}

export function compare(operator: CompareOperator, left: Value, right: Value, budget: Budget): boolean {
  switch (operator) {
    case '==':
      return equal(left, right, budget)
    case '!=':
      return !equal(left, right, budget)
    case 'in':
      return contains(right, left, budget)
    case 'not in':
      return !contains(right, left, budget)
    case '<':
      return less(left, right, budget, '<')
    case '>':
      return less(right, left, budget, '>')
    case '<=':
      return less(left, right, budget, '<=') || equal(left, right, budget)
    case '>=':
      return less(right, left, budget, '>=') || equal(left, right, budget)
  }
}

export function equal(left: Value, right: Value, budget: Budget): boolean {
  budget.step()
  if (typeof left === 'string' || typeof right === 'string') {
    if (typeof left === 'string') budget.read(left.length)
    return left === right
  }
  const [a, b] = [numberOf(left), numberOf(right)]
  if (a !== null || b !== null) return a === b
  if (left instanceof Undefined) return right instanceof Undefined
  if (isList(left) && isList(right)) return equalItems(left, right, budget)
  if (left instanceof Tuple && right instanceof Tuple) return equalItems(left.items, right.items, budget)
  if (isDict(left) && isDict(right)) {
    if (left.size !== right.size) return false
    for (const [key, value] of left) {
      const other = right.get(key)
      if (other === undefined || !equal(value, other, budget)) return false
    }
    return true
  }
  return left === right
}

function equalItems(left: readonly Value[], right: readonly Value[], budget: Budget): boolean {
  return left.length === right.length && left.every((item, i) => equal(item, right[i] as Value, budget))
}

/** `<` @throws TemplateError for values that have no order, named with the operator as it was written */
export function less(left: Value, right: Value, budget: Budget, operator = '<'): boolean {
  budget.step()
  refuseUndefined(left, right)
  if (typeof left === 'string' && typeof right === 'string') {
    budget.read(Math.min(left.length, right.length))
    return compareText(left, right) < 0
  }
  const [a, b] = [numberOf(left), numberOf(right)]
  if (a !== null && b !== null) return a < b
  const items = [left, right].map((value) => (isList(value) ? value : value instanceof Tuple ? value.items : null))
  const [first, second] = items
  if (first && second && isList(left) === isList(right)) {
    const differs = first.findIndex((item, i) => i >= second.length || !equal(item, second[i] as Value, budget))
    if (differs < 0) return first.length < second.length
    return differs < second.length && less(first[differs] as Value, second[differs] as Value, budget, operator)
  }
  const types = operator.startsWith('>') ? [right, left] : [left, right]
  throw new TemplateError(
    `'${operator}' not supported between instances of ${types.map((value) => `'${typeName(value)}'`).join(' and ')}`,
  )
}

/** `item in container` */
export function contains(container: Value, item: Value, budget: Budget): boolean {
  if (typeof container === 'string') {
    if (typeof item !== 'string') {
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(item)}`)
    }
    budget.search(container.length, item.length)
    return container.includes(item)
  }
  if (isDict(container)) return !(item instanceof Undefined) && container.has(toKey(item))
  const iterable =
    container instanceof Undefined || container instanceof Stream || container instanceof View || itemsOf(container)
  if (!iterable) throw new TemplateError(`argument of type '${typeName(container)}' is not iterable`)
  for (const candidate of iterate(container)) if (equal(candidate, item, budget)) return true
  return false
}

/** `~` */
export function concat(values: readonly Value[], budget: Budget): string {
  const texts = values.map((value) => str(value, budget))
  budget.make(texts.reduce((sum, text) => sum + text.length, 0))
  return texts.join('')
}
