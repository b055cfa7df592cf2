// How much a template may do. It comes with a model and is code that nobody here has read: what it may cost is counted as it runs, so
// that it ends in bounded time and memory wherever it runs, and on every machine at the same place.

import { BudgetError } from './errors.js'

/** Characters that cost as much as one step. */
const charsPerStep = 64

export interface Limits {
  /** expressions and statements evaluated, and characters and items worked through */
  steps: number
  /** UTF-16 units of all texts and eight times the items of all lists that are made */
  size: number
}

export class Budget {
  #steps: number
  #size: number

  constructor({ steps, size }: Limits) {
    this.#steps = steps
    this.#size = size
  }

  /** One expression or statement, or one item of a loop. */
  step(): void {
    if (--this.#steps < 0) throw new BudgetError('it takes too many steps')
  }

  /** So many characters or items that are read. */
  read(count: number): void {
    this.#steps -= count / charsPerStep
    if (this.#steps < 0) throw new BudgetError('it takes too many steps')
  }

  /** A search for a text in another, which may compare it at each place. */
  search(length: number, needle: number): void {
    this.read(length * (1 + needle / 16))
  }

  /** To be said before a text of so many characters is made. */
  make(length: number): void {
    this.read(length)
    this.#size -= length
    if (this.#size < 0) throw new BudgetError('it makes too much text')
  }

  /** To be said before a list of so many items is made. */
  makeItems(length: number): void {
    this.make(8 * length)
  }
}
