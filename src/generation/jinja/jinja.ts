// Jinja as transformers runs it on chat templates, for templates that nobody here has read: it counts what they do and stops them.

import { Budget, type Limits } from './budget.js'
import { BudgetError, TemplateError } from './errors.js'
import { render } from './evaluate.js'
import { makeGlobals } from './globals.js'
import { parse } from './parser.js'
import { namesIn, type Statement } from './syntax.js'
import { fromJson, type Value } from './values.js'

export type { Limits } from './budget.js'
export { BudgetError, TemplateError } from './errors.js'

/** Longer sources are no chat templates. */
const maxSource = 1 << 20

export class JinjaTemplate {
  readonly #body: Statement[]
  /** Every variable that the template reads. */
  readonly names: ReadonlySet<string>

  /** @throws TemplateError where the source is no Jinja, or uses what chat templates may not */
  constructor(source: string) {
    if (source.length > maxSource) {
      throw new TemplateError(`it has ${source.length} characters; at most ${maxSource} are supported`)
    }
    this.#body = withinStack(() => parse(source))
    this.names = namesIn(this.#body)
  }

  /**
   * @param variables JSON by name
   * @param now the time that strftime_now shows
   * @throws TemplateError when the template refuses or fails; BudgetError when it does more than the limits allow
   */
  render(variables: Readonly<Record<string, unknown>>, limits: Limits, now = () => new Date()): string {
    const budget = new Budget(limits)
    const values = new Map<string, Value>(makeGlobals(budget, now))
    for (const [name, value] of Object.entries(variables)) if (value !== undefined) values.set(name, fromJson(value))
    return withinStack(() => render(this.#body, values, budget))
  }
}

/** The result of what recurses as deep as the template says. */
function withinStack<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (error instanceof RangeError) throw new BudgetError('it nests too deep', { cause: error })
    throw error
  }
}
