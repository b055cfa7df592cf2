// An end to work that may have none: regular expressions that come with a model.

import { createContext, Script } from 'node:vm'

export class TimeLimitError extends Error {}

const context = createContext({ work: null })
const call = new Script('work()')

/**
 * The result of `work`, which is stopped wherever it is, inside of a regular expression too. Starting the clock takes about 0.1 ms.
 * @throws TimeLimitError when it takes longer than `ms`
 */
export function withinTime<T>(ms: number, work: () => T): T {
  context.work = work
  try {
    return call.runInContext(context, { timeout: Math.ceil(ms) }) as T
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    throw new TimeLimitError(`stopped after ${Math.ceil(ms)} ms`)
  } finally {
    context.work = null
  }
}
