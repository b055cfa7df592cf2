/**
 * A model folder cannot be served. The message is one line that names the file, what was expected in it and what was found; it is
 * written for the person who started the server, so it is printed without a stack.
 */
export class ModelError extends Error {
  override name = 'ModelError'
}

/** A value in a message: short and on one line. */
export function describe(value: unknown): string {
  if (value === undefined) return 'nothing'
  const text = JSON.stringify(value)
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}

/** Names in a message: the first ones, then how many more there are. */
export function list(names: string[], shown: number): string {
  const rest = names.length - shown
  return rest > 0 ? `${names.slice(0, shown).join(', ')} and ${rest} more` : names.join(', ')
}
