// POST /v1/completions

import { countCodePoints } from '../generation/detokenizer.js'
import type { Delta, PreparedRequest } from '../generation/request.js'
import { type AnswerHead, answerHead, newId, type Shown, sampling, shownOf, textOnly } from './answer.js'
import type { Call, Reply } from './call.js'
import { type Json, TextChunks } from './json.js'
import { addNoToken, addTokens, emptyLogprobs, type LegacyLogprobs } from './legacy_logprobs.js'
import { obfuscation } from './obfuscation.js'
import { type PromptLogprobs, showPromptLogprobs } from './prompt_logprobs.js'
import { admit, mostTokens } from './rate_limits.js'
import { checkModel, needModel } from './ready.js'
import { parseCompletion } from './schema.js'
import { type Usage, UsageCount } from './usage.js'

interface Choice {
  text: string
  index: number
  logprobs: LegacyLogprobs | null
  /** null only in a stream, before the last */
  finish_reason: Delta['finish_reason']
  stop_reason?: string | number
  prompt_logprobs?: PromptLogprobs
  prompt_token_ids?: number[]
  token_ids?: number[]
}

export interface CompletionChunk extends AnswerHead<'text_completion'> {
  choices: Choice[]
  /** in a stream */
  obfuscation?: string
  usage?: Usage | null
}

export interface CompletionAnswer extends CompletionChunk {
  choices: (Choice & { finish_reason: 'stop' | 'length' })[]
  usage: Usage
}

/** What a completion shows beside what all answers may. */
interface CompletionShown extends Shown {
  echo: boolean
  /** most probable tokens beside each token of the text */
  numTop: number
}

export async function createCompletion(call: Call, input: unknown): Promise<Reply> {
  const { generation, fingerprint } = needModel(call.state)
  const body = parseCompletion(input, call.state.log)
  checkModel(call.state, body.model)
  const { echo = false, logprobs, prompt_logprobs, max_tokens } = body
  const params = {
    ...sampling(body),
    max_tokens,
    max_tokens_param: 'max_tokens',
    num_logprobs: logprobs,
    echo,
    num_prompt_logprobs: prompt_logprobs === undefined ? undefined : Math.max(prompt_logprobs, (echo && logprobs) || 0),
  }
  const prepared = await generation.prepareCompletion(body.prompt, params, call.signal)
  admit(call, mostTokens(prepared))
  const count = new UsageCount(call.record, prepared)
  const deltas = generation.generate(prepared, call.signal)
  const head = answerHead(call, newId('cmpl-'), 'text_completion', fingerprint, body)
  const shown = { ...shownOf(body, logprobs !== undefined), echo, numTop: logprobs ?? 0 }
  if (body.stream) return { events: chunks(deltas, count, head, prepared, shown) }
  const choices = Array.from({ length: prepared.prompts.length * prepared.params.n }, (_, index) =>
    emptyChoice(index, prepared, shown, true),
  )
  for await (const delta of deltas) {
    count.add(delta)
    const choice = choices[delta.index]
    if (choice) addDelta(choice, delta, prepared, shown)
  }
  const answer = { ...head, choices, usage: count.usage } as CompletionAnswer // every choice has ended
  return { json: answer }
}

async function* chunks(
  deltas: AsyncGenerator<Delta>,
  count: UsageCount,
  head: AnswerHead<'text_completion'>,
  prepared: PreparedRequest,
  shown: CompletionShown,
): AsyncGenerator<CompletionChunk | Json> {
  const chunk = (choice: Choice): CompletionChunk => ({
    ...head,
    choices: [choice],
    ...(shown.obfuscated ? obfuscation(choice) : {}),
    ...(shown.usage === 'none' ? {} : { usage: shown.usage === 'always' ? count.usage : null }),
  })
  const texts = new TextChunks((index, text) => chunk({ ...emptyChoice(index, prepared, shown, false), text }))
  const plain = textOnly(shown)
  const begun = new Set<number>()
  for await (const delta of deltas) {
    count.add(delta)
    const { index, text, tokens, finish_reason } = delta
    const first = !begun.has(index)
    const silent = text === '' && tokens.length === 0 && finish_reason === null
    if (silent && !shown.tokenIds && !(first && shown.echo)) continue
    begun.add(index)
    if (plain && !delta.prompt && finish_reason === null) {
      yield texts.of(index, text)
      continue
    }
    const choice = emptyChoice(index, prepared, shown, first)
    addDelta(choice, delta, prepared, shown)
    yield chunk(choice)
  }
  if (shown.usage !== 'none') yield { ...head, choices: [], usage: count.usage }
}

/** @param first the first that is told of this choice */
function emptyChoice(index: number, prepared: PreparedRequest, shown: CompletionShown, first: boolean): Choice {
  const choice: Choice = {
    text: '',
    index,
    logprobs: shown.logprobs ? emptyLogprobs() : null,
    finish_reason: null,
  }
  if (shown.tokenIds) {
    const prompt = prepared.prompts[Math.floor(index / prepared.params.n)] ?? []
    if (first) choice.prompt_token_ids = Array.from(prompt)
    choice.token_ids = []
  }
  return choice
}

function addDelta(choice: Choice, delta: Delta, prepared: PreparedRequest, shown: CompletionShown): void {
  const { prompt, text, tokens, token_ids, finish_reason, stop_reason } = delta
  if (prompt && shown.echo) {
    choice.text += prompt.text
    if (choice.logprobs) addTokens(choice.logprobs, prompt.tokens, shown.numTop, shown.namesAreIds)
  }
  if (prompt && shown.promptLogprobs !== undefined) {
    choice.prompt_logprobs = showPromptLogprobs(prompt, shown.promptLogprobs)
  }
  choice.text += text
  choice.finish_reason = finish_reason
  if (stop_reason !== null) choice.stop_reason = stop_reason
  choice.token_ids?.push(...token_ids)
  if (choice.logprobs === null) return
  addTokens(choice.logprobs, tokens, Number.POSITIVE_INFINITY, shown.namesAreIds)
  // A token was asked for, and behind a prompt that is scored beyond the context there is no place for it.
  if (prompt && token_ids.length === 0 && prepared.params.max_tokens !== 0) {
    addNoToken(choice.logprobs, countCodePoints(choice.text))
  }
}
