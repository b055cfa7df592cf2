// `loop`, and the items of a loop as they come.

import type { Budget } from './budget.js'
import { TemplateError } from './errors.js'
import { equal } from './operators.js'
import {
  type Arguments,
  Callable,
  iterate,
  type LoopValue,
  lengthOf,
  Stream,
  Tuple,
  Undefined,
  type Value,
} from './values.js'

/**
 * Looks one item ahead only when it is asked whether there is one: what comes next may depend on what the body does, as the condition of
 * the loop is tested item by item.
 */
export class Loop implements LoopValue {
  readonly #source: Value
  readonly #budget: Budget
  #iterator: Iterator<Value>
  #length: number | null = null
  #index0 = -1
  #before: Value | undefined
  #current: Value | undefined
  #ahead: IteratorResult<Value> | null = null
  #changed: Value | undefined
  readonly #recurse: Callable | null
  readonly #depth0: number

  /** @param recurse renders the loop's body for other items, where the loop is recursive */
  constructor(source: Value, budget: Budget, recurse: ((items: Value) => Value) | null, depth0: number) {
    this.#source = source
    this.#budget = budget
    this.#iterator = iterate(source)[Symbol.iterator]()
    this.#depth0 = depth0
    this.#recurse =
      recurse === null ? null : new Callable('loop', ({ args }) => recurse(args[0] ?? new Undefined('no items')))
  }

  /** Renders the body for other items. */
  get recurse(): Callable | null {
    return this.#recurse
  }

  /** The next item, or undefined at the end. */
  next(): Value | undefined {
    this.#budget.step()
    const { done, value } = this.#ahead ?? this.#iterator.next()
    this.#ahead = null
    if (done) return undefined
    this.#index0++
    this.#before = this.#current
    this.#current = value
    return value
  }

  #peek(): IteratorResult<Value> {
    this.#ahead ??= this.#iterator.next()
    return this.#ahead
  }

  #total(): number {
    if (this.#length !== null) return this.#length
    if (this.#source instanceof Stream) {
      const rest: Value[] = []
      for (let item = this.#iterator.next(); !item.done; item = this.#iterator.next()) {
        this.#budget.step()
        rest.push(item.value)
      }
      this.#budget.makeItems(rest.length)
      this.#iterator = rest[Symbol.iterator]()
      const ahead = this.#ahead !== null && !this.#ahead.done ? 1 : 0
      this.#length = rest.length + this.#index0 + 1 + ahead
    } else this.#length = lengthOf(this.#source)
    return this.#length
  }

  loopAttribute(name: string): Value {
    switch (name) {
      case 'index':
        return this.#index0 + 1
      case 'index0':
        return this.#index0
      case 'revindex':
        return this.#total() - this.#index0
      case 'revindex0':
        return this.#total() - this.#index0 - 1
      case 'first':
        return this.#index0 === 0
      case 'last':
        return this.#peek().done === true
      case 'length':
        return this.#total()
      case 'depth':
        return this.#depth0 + 1
      case 'depth0':
        return this.#depth0
      case 'previtem':
        return this.#before === undefined ? new Undefined('there is no previous item') : this.#before
      case 'nextitem': {
        const { done, value } = this.#peek()
        return done ? new Undefined('there is no next item') : value
      }
      case 'cycle':
        return new Callable(name, ({ args }) => {
          if (args.length === 0) throw new TemplateError('no items for cycling given')
          return args[this.#index0 % args.length] ?? null
        })
      case 'changed':
        return new Callable(name, ({ args }: Arguments) => {
          const value = new Tuple(args)
          const changed = this.#changed === undefined || !equal(this.#changed, value, this.#budget)
          this.#changed = value
          return changed
        })
      default:
        return new Undefined(`'jinja2.runtime.LoopContext object' has no attribute '${name}'`)
    }
  }
}

/** The items for which a loop's condition holds, tested when their turn comes. */
export function* filtered(items: Value, holds: (item: Value) => boolean): Generator<Value> {
  for (const item of iterate(items)) if (holds(item)) yield item
}
