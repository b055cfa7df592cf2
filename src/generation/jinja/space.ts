// White space as Python sees it.

/** The inside of a character class. JavaScript's \s has U+FEFF too, and lacks U+0085 and the separators below U+0020. */
export const space = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'

/** What ends a line. */
export const lineEnd = '\\r\\n|[\\n-\\r\\x1c-\\x1e\\x85\\u2028\\u2029]'

const one = new RegExp(`[${space}]`)

export function trimStart(text: string): string {
  let start = 0
  while (start < text.length && one.test(text[start] ?? '')) start++
  return text.slice(start)
}

export function trimEnd(text: string): string {
  let end = text.length
  while (end > 0 && one.test(text[end - 1] ?? '')) end--
  return text.slice(0, end)
}
