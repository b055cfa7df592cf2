// Merges of a vocabulary that is stored without them: any two tokens that join to a third.

/**
 * The earlier the third token's id, the better the merge; of merges to the same token the one with the shorter left side.
 * @param skip ids that take no part
 */
export function mergesOf(
  vocab: ReadonlyMap<string, number>,
  skip: ReadonlySet<number> = new Set(),
): [string, string][] {
  const merges: [string, string][] = []
  const known = (token: string) => {
    const id = vocab.get(token)
    return id !== undefined && !skip.has(id)
  }
  const inOrder = [...vocab].filter(([, id]) => !skip.has(id)).sort(([, a], [, b]) => a - b)
  for (const [token] of inOrder) {
    for (let at = 1; at < token.length; at++) {
      if ((token.charCodeAt(at) & 0xfc00) === 0xdc00) continue // inside a character
      const left = token.slice(0, at)
      if (!known(left)) continue
      const right = token.slice(at)
      if (known(right)) merges.push([left, right])
    }
  }
  return merges
}
