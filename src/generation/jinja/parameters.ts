// Arguments of a call → the parameters of a function, as Python binds them.

import { TemplateError } from './errors.js'
import type { Arguments, Value } from './values.js'

/**
 * A value for each parameter; undefined where none was given.
 * @param parameters their names in order; one that must be given ends in `!`
 * @throws TemplateError for too few, too many or unknown arguments
 */
export function bind(name: string, parameters: readonly string[], { args, kwargs }: Arguments): (Value | undefined)[] {
  if (args.length > parameters.length) {
    throw new TemplateError(`${name}() takes at most ${parameters.length} arguments (${args.length} given)`)
  }
  const names = parameters.map((parameter) => parameter.replace('!', ''))
  for (const key of kwargs.keys()) {
    const position = names.indexOf(key)
    if (position < 0) throw new TemplateError(`${name}() got an unexpected keyword argument '${key}'`)
    if (position < args.length) throw new TemplateError(`${name}() got multiple values for argument '${key}'`)
  }
  return names.map((parameter, i) => {
    const value = i < args.length ? args[i] : kwargs.get(parameter)
    if (value === undefined && parameters[i]?.endsWith('!')) {
      throw new TemplateError(`${name}() missing required argument: '${parameter}'`)
    }
    return value
  })
}
