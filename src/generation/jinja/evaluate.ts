// Runs a syntax tree.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { applyFilter } from './filters.js'
import { filtered, Loop } from './loop.js'
import { getAttribute, getItem, slice } from './methods.js'
import { binary, compare, concat, negate, refuseUndefined } from './operators.js'
import { str } from './show.js'
import type { CallArguments, Expression, FilterCall, Signature, Statement, Target } from './syntax.js'
import { runTest } from './tests.js'
import {
  type Arguments,
  Callable,
  type DictKey,
  isDict,
  isLoop,
  isTrue,
  iterate,
  Namespace,
  Stream,
  Tuple,
  toKey,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** Variables, and those of the blocks around. */
class Scope {
  readonly #values = new Map<string, Value>()

  constructor(readonly parent: Scope | null) {}

  get(name: string): Value {
    for (let scope: Scope | null = this; scope !== null; scope = scope.parent) {
      const value = scope.#values.get(name)
      if (value !== undefined) return value
    }
    return new Undefined(`'${name}' is undefined`)
  }

  set(name: string, value: Value): void {
    this.#values.set(name, value)
  }
}

/** How a body ended. */
type Ending = 'break' | 'continue' | undefined

/** @throws TemplateError; RangeError where it nests deeper than the stack */
export function render(body: readonly Statement[], variables: ReadonlyMap<string, Value>, budget: Budget): string {
  const scope = new Scope(null)
  for (const [name, value] of variables) scope.set(name, value)
  return new Evaluator(budget).text(body, new Scope(scope))
}

class Evaluator {
  readonly #budget: Budget

  constructor(budget: Budget) {
    this.#budget = budget
  }

  /** What the statements write. */
  text(body: readonly Statement[], scope: Scope): string {
    const out: string[] = []
    this.#run(body, scope, out)
    return out.join('')
  }

  #run(body: readonly Statement[], scope: Scope, out: string[]): Ending {
    for (const statement of body) {
      this.#budget.step()
      const ending = this.#statement(statement, scope, out)
      if (ending !== undefined) return ending
    }
    return undefined
  }

  #write(text: string, out: string[]): void {
    this.#budget.make(text.length)
    out.push(text)
  }

  #statement(statement: Statement, scope: Scope, out: string[]): Ending {
    switch (statement.kind) {
      case 'text':
        this.#write(statement.text, out)
        return
      case 'output':
        this.#write(str(this.#value(statement.value, scope), this.#budget), out)
        return
      case 'if': {
        const branch = statement.branches.find(([test]) => isTrue(this.#value(test, scope)))
        return this.#run(branch?.[1] ?? statement.otherwise, scope, out)
      }
      case 'for':
        this.#loop(statement, this.#value(statement.items, scope), scope, 0, out)
        return
      case 'break':
      case 'continue':
        return statement.kind
      case 'set':
        this.#assign(statement.target, this.#value(statement.value, scope), scope)
        return
      case 'set block': {
        const text = this.text(statement.body, new Scope(scope))
        this.#assign(statement.target, this.#filtered(text, statement.filters, scope), scope)
        return
      }
      case 'filter block': {
        const inner = new Scope(scope)
        this.#write(str(this.#filtered(this.text(statement.body, inner), statement.filters, inner), this.#budget), out)
        return
      }
      case 'with': {
        const inner = new Scope(scope)
        for (const [target, value] of statement.values) this.#assign(target, this.#value(value, scope), inner)
        return this.#run(statement.body, inner, out)
      }
      case 'macro':
        scope.set(statement.signature.name, this.#macro(statement.signature, scope))
        return
      case 'call block': {
        const given = this.#arguments(statement.given, scope)
        const caller = this.#macro(statement.signature, scope)
        const kwargs = new Map([...given.kwargs, ['caller', caller] as const])
        const result = this.#call(this.#value(statement.callee, scope), { args: given.args, kwargs })
        this.#write(str(result, this.#budget), out)
        return
      }
    }
  }

  #loop(
    statement: Extract<Statement, { kind: 'for' }>,
    items: Value,
    scope: Scope,
    depth0: number,
    out: string[],
  ): void {
    const { target, test, recursive } = statement
    const holds = (item: Value) => {
      const inner = new Scope(scope)
      this.#assign(target, item, inner)
      return isTrue(this.#value(test as Expression, inner))
    }
    const recurse = (inner: Value): Value => {
      const text: string[] = []
      this.#loop(statement, inner, scope, depth0 + 1, text)
      return text.join('')
    }
    const source = test === null ? items : new Stream(filtered(items, holds))
    const loop = new Loop(source, this.#budget, recursive ? recurse : null, depth0)
    // As Jinja has it, what counts is whether a body came to its end.
    let empty = true
    for (let item = loop.next(); item !== undefined; item = loop.next()) {
      const inner = new Scope(scope)
      inner.set('loop', loop)
      this.#assign(target, item, inner)
      const ending = this.#run(statement.body, inner, out)
      if (ending === 'break') break
      if (ending === undefined) empty = false
    }
    if (empty) this.#run(statement.otherwise, new Scope(scope), out)
  }

  #assign(target: Target, value: Value, scope: Scope): void {
    if (target.kind === 'name') {
      scope.set(target.name, value)
    } else if (target.kind === 'namespace') {
      const object = scope.get(target.name)
      if (!(object instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object')
      object.attributes.set(target.attribute, value)
    } else {
      const values = [...iterate(value)]
      const { targets } = target
      if (values.length > targets.length) {
        throw new TemplateError(`too many values to unpack (expected ${targets.length})`)
      }
      if (values.length < targets.length) {
        throw new TemplateError(`not enough values to unpack (expected ${targets.length}, got ${values.length})`)
      }
      targets.forEach((one, i) => {
        this.#assign(one, values[i] ?? null, scope)
      })
    }
  }

  #filtered(text: string, filters: readonly FilterCall[], scope: Scope): Value {
    return filters.reduce(
      (value: Value, [name, given]) => applyFilter(name, value, this.#arguments(given, scope), this.#budget),
      text,
    )
  }

  #macro({ name, parameters, body, uses }: Signature, scope: Scope): Callable {
    return new Callable(name, ({ args, kwargs }) => {
      const inner = new Scope(scope)
      const left = new Map(kwargs)
      parameters.forEach(([parameter, otherwise], i) => {
        const value = i < args.length ? args[i] : left.get(parameter)
        if (i >= args.length) left.delete(parameter)
        if (value !== undefined) inner.set(parameter, value)
        else if (otherwise !== null) inner.set(parameter, this.#value(otherwise, inner))
        else inner.set(parameter, new Undefined(`parameter '${parameter}' was not provided`))
      })
      if (uses.caller) {
        inner.set('caller', left.get('caller') ?? new Undefined('No caller defined'))
        left.delete('caller')
      }
      const [unknown] = left.keys()
      if (uses.kwargs) inner.set('kwargs', left)
      else if (unknown !== undefined) {
        throw new TemplateError(`macro '${name}' takes no keyword argument '${unknown}'`)
      }
      if (uses.varargs) inner.set('varargs', new Tuple(args.slice(parameters.length)))
      else if (args.length > parameters.length) {
        throw new TemplateError(`macro '${name}' takes not more than ${parameters.length} argument(s)`)
      }
      return this.text(body, inner)
    })
  }

  #call(callee: Value, given: Arguments): Value {
    refuseUndefined(callee)
    const callable = callee instanceof Loop ? callee.recurse : callee
    if (callable instanceof Callable) return callable.call(given)
    if (isLoop(callee)) {
      throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.")
    }
    throw new TemplateError(`'${typeName(callee)}' object is not callable`)
  }

  #arguments({ args, kwargs, moreArgs, moreKwargs }: CallArguments, scope: Scope): Arguments {
    const values = args.map((arg) => this.#value(arg, scope))
    if (moreArgs !== null) {
      for (const value of iterate(this.#value(moreArgs, scope))) {
        this.#budget.step()
        values.push(value)
      }
    }
    const named = new Map(kwargs.map(([name, value]) => [name, this.#value(value, scope)]))
    if (moreKwargs !== null) {
      const more = this.#value(moreKwargs, scope)
      if (!isDict(more)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(more)}`)
      for (const [name, value] of more) {
        this.#budget.step()
        if (named.has(String(name))) throw new TemplateError(`got multiple values for keyword argument '${name}'`)
        named.set(String(name), value)
      }
    }
    return { args: values, kwargs: named }
  }

  #value(node: Expression, scope: Scope): Value {
    const budget = this.#budget
    budget.step()
    switch (node.kind) {
      case 'constant':
        return node.value
      case 'name':
        return scope.get(node.name)
      case 'list':
        return node.items.map((item) => this.#value(item, scope))
      case 'tuple':
        return new Tuple(node.items.map((item) => this.#value(item, scope)))
      case 'dict': {
        const pairs = node.pairs.map(([key, value]): [DictKey, Value] => [
          toKey(this.#value(key, scope)),
          this.#value(value, scope),
        ])
        return new Map(pairs)
      }
      case 'concat':
        return concat(
          node.items.map((item) => this.#value(item, scope)),
          budget,
        )
      case 'attribute':
        return getAttribute(this.#value(node.object, scope), node.name, budget)
      case 'item':
        return getItem(this.#value(node.object, scope), this.#value(node.index, scope), budget)
      case 'slice': {
        const object = this.#value(node.object, scope)
        const bounds = node.bounds.map((bound) => (bound === null ? null : this.#value(bound, scope)))
        return slice(object, bounds, budget)
      }
      case 'call': {
        const callee = this.#value(node.callee, scope)
        return this.#call(callee, this.#arguments(node.given, scope))
      }
      case 'filter':
        return applyFilter(node.name, this.#value(node.operand, scope), this.#arguments(node.given, scope), budget)
      case 'test':
        return runTest(node.name, this.#value(node.operand, scope), this.#arguments(node.given, scope), budget)
      case 'not':
        return !isTrue(this.#value(node.operand, scope))
      case 'negative':
        return negate(this.#value(node.operand, scope), '-')
      case 'positive':
        return negate(this.#value(node.operand, scope), '+')
      case 'and': {
        const left = this.#value(node.left, scope)
        return isTrue(left) ? this.#value(node.right, scope) : left
      }
      case 'or': {
        const left = this.#value(node.left, scope)
        return isTrue(left) ? left : this.#value(node.right, scope)
      }
      case 'compare': {
        let left = this.#value(node.first, scope)
        for (const [operator, operand] of node.rest) {
          const right = this.#value(operand, scope)
          if (!compare(operator, left, right, budget)) return false
          left = right
        }
        return true
      }
      case 'binary':
        return binary(node.operator, this.#value(node.left, scope), this.#value(node.right, scope), budget)
      case 'conditional':
        if (isTrue(this.#value(node.test, scope))) return this.#value(node.yes, scope)
        return node.no === null
          ? new Undefined('the inline if-expression evaluated to false and no else section was defined.')
          : this.#value(node.no, scope)
    }
  }
}
