// How well documents suit queries, by any language model: how likely the query is behind the document, or a yes against a no.

import { ApiError } from '../errors.js'
import type { Parts, Prompts } from './prompts.js'

export type RelevanceMethod = 'likelihood' | 'yes_no'

export interface Pair {
  query: string
  document: string
}

export interface RelevanceOptions {
  /**
   * likelihood: the geometric mean of the probabilities of the query's tokens behind the document ("query likelihood"; Sachan et al.
   * 2022 rank with it). yes_no: p(yes) / (p(yes) + p(no)) as the next token.
   */
  method: RelevanceMethod
  /** the text that the model reads, with {document} and {query} in it; for a likelihood the query is its end */
  template?: string | undefined
  /** what the model would answer; the first token counts */
  yes?: string | undefined
  no?: string | undefined
}

const templates: Record<RelevanceMethod, string> = {
  likelihood: 'Passage: {document}\nQuery: {query}',
  yes_no: 'Passage: {document}\nQuery: {query}\nDoes the passage answer the query? Answer yes or no.\nAnswer:',
}

/** What is measured of a pair. */
export interface RelevancePrompt {
  ids: Int32Array
  /** of a likelihood: the tokens at the end that are the query's */
  numQueryTokens: number
}

/** The template's text before, between and behind the places, which stand at the odd indices. @throws ApiError */
function partsOf(method: RelevanceMethod, template = templates[method]): string[] {
  const wrong = (sentence: string) => new ApiError('invalid_value', `'template' ${sentence}.`, 'template')
  const parts = template.split(/\{(query|document)\}/)
  const places = parts.filter((_, i) => i % 2 === 1)
  if (places.length !== 2 || places[0] === places[1]) throw wrong('must hold {query} and {document}, each once')
  if (method === 'likelihood' && (places[1] !== 'query' || parts[4] !== '')) {
    throw wrong('must end with {query} when \'method\' is "likelihood"')
  }
  return parts
}

/** The tokens of the pairs. @throws ApiError */
export async function relevancePrompts(
  prompts: Prompts,
  pairs: readonly Pair[],
  { method, template }: RelevanceOptions,
  signal: AbortSignal,
): Promise<RelevancePrompt[]> {
  const [before = '', first, between = '', second, behind = ''] = partsOf(method, template)
  const fill = (place: string | undefined, pair: Pair) => ({
    untrusted: place === 'query' ? pair.query : pair.document,
  })
  if (method === 'yes_no') {
    const whole = (pair: Pair): Parts => [before, fill(first, pair), between, fill(second, pair), behind]
    const all = await Promise.all(pairs.map((pair) => prompts.filled(whole(pair), true, signal)))
    return all.map((ids) => ({ ids, numQueryTokens: 0 }))
  }
  // A query is encoded for itself, and once, so that its tokens are the same ones behind every document. The space before it is its
  // own, as tokenizers want it.
  const context = between.trimEnd()
  const queries = new Map<string, Promise<Int32Array>>()
  const encodeQuery = (pair: Pair) => {
    const known = queries.get(pair.query)
    if (known) return known
    const ids = prompts.filled([between.slice(context.length), fill(second, pair)], false, signal)
    queries.set(pair.query, ids)
    return ids
  }
  return Promise.all(
    pairs.map(async (pair) => {
      const document = await prompts.filled([before, fill(first, pair), context], true, signal)
      const query = await encodeQuery(pair)
      return { ids: Int32Array.of(...document, ...query), numQueryTokens: query.length }
    }),
  )
}

/** The ids of yes and no: the first tokens of the words. @throws ApiError when they are the same */
export async function answerIds(
  prompts: Prompts,
  { yes = ' yes', no = ' no' }: RelevanceOptions,
  signal: AbortSignal,
): Promise<number[]> {
  const ids = await Promise.all([yes, no].map((word) => prompts.encode(word, false, signal)))
  const [yesId, noId] = ids.map(([first]) => first)
  if (yesId === undefined || noId === undefined || yesId === noId) {
    const words = `${JSON.stringify(yes.slice(0, 60))} and ${JSON.stringify(no.slice(0, 60))}`
    throw new ApiError('invalid_value', `'yes' and 'no' must begin with different tokens, but ${words} do not.`, 'yes')
  }
  return [yesId, noId]
}

/** @param logprobs of a prompt's tokens from its second on */
export function likelihood(logprobs: Float32Array, numQueryTokens: number): number {
  const own = logprobs.subarray(logprobs.length - numQueryTokens)
  return Math.exp(own.reduce((sum, logprob) => sum + logprob, 0) / own.length)
}

/** @param logprobs of yes and of no */
export function yesAgainstNo([yes = 0, no = 0]: Float32Array): number {
  return 1 / (1 + Math.exp(no - yes))
}
