// POST /v1/chat/completions, and /v1/chat/completions/render

import type { ShownChoice } from '../generation/logprobs.js'
import type { Delta, PreparedRequest } from '../generation/request.js'
import { type AnswerHead, answerHead, newId, type Shown, sampling, shownOf, textOnly } from './answer.js'
import type { Call, Reply } from './call.js'
import { type ChatTokenChoice, showTokens } from './chat_tokens.js'
import { type Json, TextChunks } from './json.js'
import { obfuscation } from './obfuscation.js'
import { type PromptLogprobs, showPromptLogprobs } from './prompt_logprobs.js'
import { admit, mostTokens } from './rate_limits.js'
import { checkModel, needModel } from './ready.js'
import { parseChat, renderOptions } from './schema.js'
import { type Usage, UsageCount } from './usage.js'

interface Logprobs {
  content: ChatTokenChoice[]
  refusal: null
}

interface Choice {
  index: number
  message: { role: 'assistant'; content: string; refusal: null }
  logprobs: Logprobs | null
  finish_reason: 'stop' | 'length'
  stop_reason?: string | number
  token_ids?: number[]
}

interface ChunkChoice {
  index: number
  delta: { role?: 'assistant'; content?: string }
  logprobs: Logprobs | null
  finish_reason: Delta['finish_reason']
  stop_reason?: string | number
  token_ids?: number[]
}

export interface ChatAnswer extends AnswerHead<'chat.completion'> {
  choices: Choice[]
  usage: Usage
  prompt_token_ids?: number[]
  prompt_logprobs?: PromptLogprobs
}

export interface ChatChunk extends AnswerHead<'chat.completion.chunk'> {
  choices: ChunkChoice[]
  usage?: Usage | null
  obfuscation?: string
  prompt_token_ids?: number[]
}

export async function createChatCompletion(call: Call, input: unknown): Promise<Reply> {
  const { generation, fingerprint } = needModel(call.state)
  const body = parseChat(input, call.state.log)
  checkModel(call.state, body.model)
  const shown = shownOf(body, body.logprobs === true)
  const prepared = await generation.prepareChat(
    body.messages,
    {
      ...sampling(body),
      max_tokens: body.max_completion_tokens ?? body.max_tokens,
      max_tokens_param: body.max_completion_tokens === undefined ? 'max_tokens' : 'max_completion_tokens',
      num_logprobs: shown.logprobs ? (body.top_logprobs ?? 0) : undefined,
      num_prompt_logprobs: body.prompt_logprobs,
    },
    renderOptions(body),
    call.signal,
  )
  admit(call, mostTokens(prepared))
  const count = new UsageCount(call.record, prepared)
  const deltas = generation.generate(prepared, call.signal)
  const id = newId('chatcmpl-')
  if (body.stream) {
    const head = answerHead(call, id, 'chat.completion.chunk', fingerprint, body)
    return { events: chunks(deltas, count, head, prepared, shown) }
  }
  const choices = Array.from(
    { length: prepared.params.n },
    (_, index): Choice => ({
      index,
      message: { role: 'assistant', content: '', refusal: null },
      logprobs: shown.logprobs ? showLogprobs([], shown) : null,
      finish_reason: 'stop',
      ...(shown.tokenIds ? { token_ids: [] } : {}),
    }),
  )
  let promptLogprobs: { prompt_logprobs?: PromptLogprobs } = {}
  for await (const delta of deltas) {
    count.add(delta)
    if (delta.prompt && shown.promptLogprobs !== undefined) {
      promptLogprobs = { prompt_logprobs: showPromptLogprobs(delta.prompt, shown.promptLogprobs) }
    }
    const choice = choices[delta.index]
    if (!choice) continue
    choice.message.content += delta.text
    if (delta.finish_reason !== null) choice.finish_reason = delta.finish_reason
    if (delta.stop_reason !== null) choice.stop_reason = delta.stop_reason
    choice.logprobs?.content.push(...showTokens(delta.tokens, shown.namesAreIds))
    choice.token_ids?.push(...delta.token_ids)
  }
  const head = answerHead(call, id, 'chat.completion', fingerprint, body)
  const answer: ChatAnswer = { ...head, choices, usage: count.usage, ...promptIds(prepared, shown), ...promptLogprobs }
  return { json: answer }
}

/** What a chat becomes before the model reads it: its text and its token ids. */
export async function renderChat(call: Call, input: unknown): Promise<Reply> {
  const { generation } = needModel(call.state)
  const body = parseChat(input, call.state.log)
  checkModel(call.state, body.model)
  const options = renderOptions(body)
  const prompt = await generation.prompts.render(body.messages, options)
  const tokens = await generation.prompts.chat(
    body.messages,
    options,
    body.add_special_tokens ?? false,
    true,
    call.signal,
  )
  return {
    json: {
      object: 'chat.completion.render',
      model: call.state.modelName,
      prompt,
      prompt_token_ids: Array.from(tokens),
      num_prompt_tokens: tokens.length,
      max_model_len: generation.maxModelLen,
    },
  }
}

async function* chunks(
  deltas: AsyncGenerator<Delta>,
  count: UsageCount,
  head: AnswerHead<'chat.completion.chunk'>,
  prepared: PreparedRequest,
  shown: Shown,
): AsyncGenerator<ChatChunk | Json> {
  const chunk = (choice: ChunkChoice, more: { prompt_token_ids?: number[] } = {}): ChatChunk => ({
    ...head,
    choices: [choice],
    ...more,
    ...(shown.obfuscated ? obfuscation(choice) : {}),
    ...(shown.usage === 'none' ? {} : { usage: shown.usage === 'always' ? count.usage : null }),
  })
  const texts = new TextChunks((index, content) =>
    chunk({ index, delta: { content }, logprobs: null, finish_reason: null }),
  )
  const plain = textOnly(shown)
  let begun = false
  for await (const delta of deltas) {
    if (!begun) {
      // Not before the first token: until then an error can still have its HTTP status.
      begun = true
      for (let index = 0; index < prepared.params.n; index++) {
        const role = { role: 'assistant', content: '' } as const
        yield chunk(
          { index, delta: role, logprobs: null, finish_reason: null },
          index === 0 ? promptIds(prepared, shown) : {},
        )
      }
    }
    count.add(delta)
    const { index, text, tokens, token_ids, finish_reason, stop_reason } = delta
    if (plain && text !== '') {
      yield texts.of(index, text)
    } else if (text !== '' || tokens.length > 0 || shown.tokenIds) {
      const logprobs = shown.logprobs ? showLogprobs(tokens, shown) : null
      yield chunk({
        ...{ index, delta: { content: text }, logprobs, finish_reason: null },
        ...(shown.tokenIds ? { token_ids } : {}),
      })
    }
    if (finish_reason !== null) {
      const why = stop_reason === null ? {} : { stop_reason }
      yield chunk({ index, delta: {}, logprobs: null, finish_reason, ...why })
    }
  }
  if (shown.usage !== 'none') yield { ...head, choices: [], usage: count.usage }
}

function promptIds(prepared: PreparedRequest, shown: Shown): { prompt_token_ids?: number[] } {
  return shown.tokenIds ? { prompt_token_ids: Array.from(prepared.prompts[0] ?? []) } : {}
}

function showLogprobs(tokens: readonly ShownChoice[], shown: Shown): Logprobs {
  return { content: showTokens(tokens, shown.namesAreIds), refusal: null }
}
