// Beam search, the algorithm of transformers' `_beam_search` (generation/utils.py, without sampling): the same beams, scores and end.
// Knows nothing of the engine: it asks for continuations of token sequences.

import type { TokenLogprob } from '../engine/engine.js'

export interface BeamSearchOptions {
  num_beams: number
  max_tokens: number
  /** a finished beam's score is its log-probability / its length ** length_penalty */
  length_penalty: number
  /**
   * true: end when num_beams are finished. false: end when the best running beam, at its length now, would be no better than the
   * worst finished one. 'never': the same at the best length that it could reach.
   */
  early_stopping: boolean | 'never'
  /** ids that finish a beam */
  ends: ReadonlySet<number>
}

/** A token of a beam, and what came before it. */
export interface BeamToken extends TokenLogprob {
  before: BeamToken | null
  /** the most probable tokens in its place, best first */
  top: readonly TokenLogprob[]
}

/** A finished beam. */
export interface Hypothesis {
  /** last token; the ends are among the tokens */
  last: BeamToken
  length: number
  /** of all tokens together */
  logprob: number
  score: number
  finish: 'stop' | 'length'
}

interface Beam {
  last: BeamToken | null
  logprob: number
}

/** Most probable tokens that a beam's continuation must hold: enough to go on if all of the best ones end. */
export function numCandidates({ num_beams, ends }: BeamSearchOptions): number {
  return Math.max(2, 1 + ends.size) * num_beams
}

/**
 * @param continueBeams for each sequence of generated tokens the numCandidates() most probable next tokens, best first
 * @returns num_beams hypotheses, best first; fewer only if the model has too few tokens
 */
export async function beamSearch(
  continueBeams: (beams: readonly (readonly number[])[]) => Promise<readonly (readonly TokenLogprob[])[]>,
  options: BeamSearchOptions,
): Promise<Hypothesis[]> {
  const { num_beams, max_tokens, length_penalty, early_stopping, ends } = options
  const keep = numCandidates(options)
  let running: Beam[] = [{ last: null, logprob: 0 }]
  let finished: Hypothesis[] = []
  for (let length = 1; length <= max_tokens && running.length > 0; length++) {
    const continuations = await continueBeams(running.map(({ last }) => tokensOf(last)))
    const candidates = running
      .flatMap((beam, i) => (continuations[i] ?? []).map((next) => candidate(beam, next, continuations[i] ?? [])))
      .sort((a, b) => b.logprob - a.logprob) // stable: of equals the better beam's, as in torch.topk
      .slice(0, keep)
    const isLast = length === max_tokens
    const isFinished = ({ last }: { last: BeamToken }) => isLast || ends.has(last.token)
    // Beyond the first num_beams candidates stand only those that replace finished ones.
    for (const { last, logprob } of candidates.slice(0, num_beams).filter(isFinished)) {
      const score = Math.fround(logprob / length ** length_penalty)
      finished.push({ last, length, logprob, score, finish: ends.has(last.token) ? 'stop' : 'length' })
    }
    finished = finished.toSorted((a, b) => b.score - a.score).slice(0, num_beams)
    running = candidates.filter((beam) => !isFinished(beam)).slice(0, num_beams)
    const [best] = running
    const worst = finished[num_beams - 1]
    if (best === undefined || worst === undefined) continue
    if (early_stopping === true) break
    const bestLength = early_stopping === 'never' && length_penalty > 0 ? max_tokens : length
    if (Math.fround(best.logprob / bestLength ** length_penalty) <= worst.score) break
  }
  return finished
}

function candidate(beam: Beam, next: TokenLogprob, top: readonly TokenLogprob[]): Beam & { last: BeamToken } {
  return { last: { ...next, before: beam.last, top }, logprob: Math.fround(beam.logprob + next.logprob) }
}

/** The tokens of a beam, first to last. */
export function beamTokens(last: BeamToken | null): BeamToken[] {
  const tokens: BeamToken[] = []
  for (let token = last; token; token = token.before) tokens.push(token)
  return tokens.reverse()
}

function tokensOf(last: BeamToken | null): number[] {
  return beamTokens(last).map(({ token }) => token)
}
