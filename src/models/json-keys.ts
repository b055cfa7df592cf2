// JSON.parse keeps the last of two equal keys and says nothing. In a file that describes memory that is not good enough.

/**
 * The first key that appears twice in one object, at any depth; null when there is none.
 * @param text JSON that JSON.parse accepts
 */
export function firstDuplicateKey(text: string): string | null {
  const open: (Set<string> | null)[] = [] // one per open bracket; null for a list
  for (let at = 0; at < text.length; at++) {
    const char = text[at]
    if (char === '{') open.push(new Set())
    else if (char === '[') open.push(null)
    else if (char === '}' || char === ']') open.pop()
    else if (char === '"') {
      const end = closingQuote(text, at)
      if (isKey(text, end)) {
        const key: string = JSON.parse(text.slice(at, end + 1))
        const keys = open.at(-1)
        if (keys?.has(key)) return key
        keys?.add(key)
      }
      at = end
    }
  }
  return null
}

/** Where the string that opens at `start` closes: the next quote after an even number of backslashes. */
function closingQuote(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); ; end = text.indexOf('"', end + 1)) {
    let backslashes = 0
    while (text[end - 1 - backslashes] === '\\') backslashes++
    if (backslashes % 2 === 0) return end
  }
}

/** Strings before a colon are keys. */
function isKey(text: string, end: number): boolean {
  let next = end + 1
  while (' \t\r\n'.includes(text[next] ?? ':')) next++
  return text[next] === ':'
}
