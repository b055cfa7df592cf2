// best_of: of several completions of a prompt the best are given out, when all are there.

import type { Delta } from './request.js'

/**
 * The `n` completions with the highest log-probability per token (OpenAI's rule) of each prompt's `bestOf`, best first, with the
 * indices that n completions would have. The first delta of a prompt counts the tokens of those that are not given out.
 * @param deltas of choices prompt * bestOf + i
 */
export async function* selectBest(deltas: AsyncIterable<Delta>, bestOf: number, n: number): AsyncGenerator<Delta> {
  const choices: { deltas: Delta[]; sum: number; count: number }[] = []
  for await (const delta of deltas) {
    choices[delta.index] ??= { deltas: [], sum: 0, count: 0 }
    const choice = choices[delta.index]
    if (!choice) continue
    choice.deltas.push(delta)
    choice.sum += delta.logprob
    choice.count += delta.token_ids.length
  }
  for (let first = 0; first < choices.length; first += bestOf) {
    const ranked = choices
      .slice(first, first + bestOf)
      .toSorted((a, b) => b.sum / Math.max(b.count, 1) - a.sum / Math.max(a.count, 1))
    let discarded = ranked.slice(n).reduce((sum, { count }) => sum + count, 0)
    for (const [i, choice] of ranked.slice(0, n).entries()) {
      for (const delta of choice.deltas) {
        yield { ...delta, index: (first / bestOf) * n + i, ...(discarded > 0 && { discarded_tokens: discarded }) }
        discarded = 0
      }
    }
  }
}
