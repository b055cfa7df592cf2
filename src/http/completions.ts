// POST /v1/completions

import type { ShownChoice, ShownToken } from '../generation/logprobs.js'
import type { Delta, PreparedRequest } from '../generation/request.js'
import { type AnswerHead, answerHead, newId, type Shown, sampling, shownOf, spelled } from './answer.js'
import type { Call, Reply } from './call.js'
import { checkModel, needModel } from './ready.js'
import { parseCompletion } from './schema.js'
import { type Usage, UsageCount } from './usage.js'

interface Logprobs {
  text_offset: number[]
  token_logprobs: number[]
  tokens: string[]
  top_logprobs: Record<string, number>[]
}

interface Choice {
  text: string
  index: number
  logprobs: Logprobs | null
  /** null only in a stream, before the last */
  finish_reason: Delta['finish_reason']
  stop_reason?: string | number
  prompt_token_ids?: number[]
  token_ids?: number[]
}

export interface CompletionChunk extends AnswerHead<'text_completion'> {
  choices: Choice[]
  usage?: Usage | null
}

export interface CompletionAnswer extends CompletionChunk {
  choices: (Choice & { finish_reason: 'stop' | 'length' })[]
  usage: Usage
}

export async function createCompletion(call: Call, input: unknown): Promise<Reply> {
  const { generation, fingerprint } = needModel(call.state)
  const body = parseCompletion(input, call.state.log)
  checkModel(call.state, body.model)
  const prepared = await generation.prepareCompletion(body.prompt, {
    ...sampling(body),
    n: body.n ?? 1,
    max_tokens: body.max_tokens,
    max_tokens_param: 'max_tokens',
    num_logprobs: body.logprobs,
  })
  const count = new UsageCount(call.record, prepared)
  const deltas = generation.generate(prepared, call.signal)
  const head = answerHead(call, newId('cmpl-'), 'text_completion', fingerprint, body)
  const shown = shownOf(body, body.logprobs !== undefined)
  if (body.stream) return { events: chunks(deltas, count, head, prepared, shown) }
  const choices = Array.from({ length: prepared.prompts.length * prepared.params.n }, (_, index) =>
    emptyChoice(index, prepared, shown, true),
  )
  for await (const delta of deltas) {
    count.add(delta)
    const choice = choices[delta.index]
    if (choice) addDelta(choice, delta, shown)
  }
  const answer = { ...head, choices, usage: count.usage } as CompletionAnswer // every choice has ended
  return { json: answer }
}

async function* chunks(
  deltas: AsyncGenerator<Delta>,
  count: UsageCount,
  head: AnswerHead<'text_completion'>,
  prepared: PreparedRequest,
  shown: Shown,
): AsyncGenerator<CompletionChunk> {
  const begun = new Set<number>()
  for await (const delta of deltas) {
    count.add(delta)
    if (delta.text === '' && delta.tokens.length === 0 && delta.finish_reason === null && !shown.tokenIds) continue
    const choice = emptyChoice(delta.index, prepared, shown, !begun.has(delta.index))
    begun.add(delta.index)
    addDelta(choice, delta, shown)
    const usage = shown.usage === 'none' ? {} : { usage: shown.usage === 'always' ? count.usage : null }
    yield { ...head, choices: [choice], ...usage }
  }
  if (shown.usage !== 'none') yield { ...head, choices: [], usage: count.usage }
}

/** @param first the first that is told of this choice */
function emptyChoice(index: number, prepared: PreparedRequest, shown: Shown, first: boolean): Choice {
  const prompt = prepared.prompts[Math.floor(index / prepared.params.n)] ?? []
  return {
    text: '',
    index,
    logprobs: shown.logprobs ? { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] } : null,
    finish_reason: null,
    ...(shown.tokenIds && first ? { prompt_token_ids: Array.from(prompt) } : {}),
    ...(shown.tokenIds ? { token_ids: [] } : {}),
  }
}

function addDelta(choice: Choice, delta: Delta, shown: Shown): void {
  choice.text += delta.text
  choice.finish_reason = delta.finish_reason
  if (delta.stop_reason !== null) choice.stop_reason = delta.stop_reason
  choice.token_ids?.push(...delta.token_ids)
  if (choice.logprobs) addLogprobs(choice.logprobs, delta.tokens, shown.namesAreIds)
}

function addLogprobs(logprobs: Logprobs, tokens: readonly ShownChoice[], namesAreIds: boolean): void {
  for (const token of tokens) {
    logprobs.text_offset.push(token.offset)
    logprobs.token_logprobs.push(token.logprob)
    logprobs.tokens.push(tokenName(token, namesAreIds))
    // Two ids with one text share a key: the more probable one stays. Best first, so the earlier wins.
    const top: Record<string, number> = Object.create(null)
    for (const other of [...token.top, token]) top[tokenName(other, namesAreIds)] ??= other.logprob
    logprobs.top_logprobs.push(top)
  }
}

/** A token as the legacy API names it: bytes that are no whole characters are spelled out. */
function tokenName(token: ShownToken, namesAreIds: boolean): string {
  if (namesAreIds) return `token_id:${token.id}`
  return token.text ?? `bytes:${spelled(token)}`
}
