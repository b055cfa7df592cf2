// POST /v1/chat/completions, and /v1/chat/completions/render

import type { ShownChoice, ShownToken } from '../generation/logprobs.js'
import type { Delta, PreparedRequest } from '../generation/request.js'
import { answerHead, newId, type Shown, sharedParams, shownOf, spelled } from './answer.js'
import type { Call, Reply } from './call.js'
import { checkModel, needModel } from './ready.js'
import { parseChat, renderOptions } from './schema.js'
import { UsageCount } from './usage.js'

interface ChatToken {
  token: string
  logprob: number
  bytes: number[]
}

interface Logprobs {
  content: (ChatToken & { top_logprobs: ChatToken[] })[]
  refusal: null
}

interface Choice {
  index: number
  message: { role: 'assistant'; content: string; refusal: null }
  logprobs: Logprobs | null
  finish_reason: Delta['finish_reason']
  stop_reason?: string | number
  token_ids?: number[]
}

export async function createChatCompletion(call: Call, input: unknown): Promise<Reply> {
  const { generation, fingerprint } = needModel(call.state)
  const body = parseChat(input, call.state.log)
  checkModel(call.state, body.model)
  const shown = shownOf(body, body.logprobs === true)
  const prepared = await generation.prepareChat(
    body.messages,
    {
      ...sharedParams(body),
      max_tokens: body.max_completion_tokens ?? body.max_tokens,
      max_tokens_param: body.max_completion_tokens === undefined ? 'max_tokens' : 'max_completion_tokens',
      num_logprobs: shown.logprobs ? (body.top_logprobs ?? 0) : undefined,
    },
    renderOptions(body),
  )
  const count = new UsageCount(call.record, prepared)
  const deltas = generation.generate(prepared, call.signal)
  const object = body.stream ? 'chat.completion.chunk' : 'chat.completion'
  const head = answerHead(call, newId('chatcmpl-'), object, fingerprint, body)
  if (body.stream) return { events: chunks(deltas, count, head, prepared, shown) }
  const choices = Array.from(
    { length: prepared.params.n },
    (_, index): Choice => ({
      index,
      message: { role: 'assistant', content: '', refusal: null },
      logprobs: shown.logprobs ? showTokens([], shown) : null,
      finish_reason: null,
      ...(shown.tokenIds ? { token_ids: [] } : {}),
    }),
  )
  for await (const delta of deltas) {
    count.add(delta)
    const choice = choices[delta.index]
    if (!choice) continue
    choice.message.content += delta.text
    choice.finish_reason = delta.finish_reason
    if (delta.stop_reason !== null) choice.stop_reason = delta.stop_reason
    choice.logprobs?.content.push(...showTokens(delta.tokens, shown).content)
    choice.token_ids?.push(...delta.token_ids)
  }
  return { json: { ...head, choices, usage: count.usage, ...promptIds(prepared, shown) } }
}

/** What a chat becomes before the model reads it: its text and its token ids. */
export async function renderChat(call: Call, input: unknown): Promise<Reply> {
  const { generation } = needModel(call.state)
  const body = parseChat(input, call.state.log)
  checkModel(call.state, body.model)
  const options = renderOptions(body)
  const prompt = generation.prompts.render(body.messages, options)
  const tokens = await generation.prompts.chat(body.messages, options, body.add_special_tokens ?? false, true)
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
  head: object,
  prepared: PreparedRequest,
  shown: Shown,
): AsyncGenerator<object> {
  const chunk = (choice: object, more: object = {}) => ({
    ...head,
    choices: [choice],
    ...more,
    ...(shown.usage === 'none' ? {} : { usage: shown.usage === 'always' ? count.usage : null }),
  })
  let begun = false
  for await (const delta of deltas) {
    if (!begun) {
      // Not before the first token: until then an error can still have its HTTP status.
      begun = true
      for (let index = 0; index < prepared.params.n; index++) {
        const role = { role: 'assistant', content: '' }
        yield chunk(
          { index, delta: role, logprobs: null, finish_reason: null },
          index === 0 ? promptIds(prepared, shown) : {},
        )
      }
    }
    count.add(delta)
    const { index, text, tokens, token_ids, finish_reason, stop_reason } = delta
    if (text !== '' || tokens.length > 0 || shown.tokenIds) {
      const logprobs = shown.logprobs ? showTokens(tokens, shown) : null
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

function showTokens(tokens: readonly ShownChoice[], shown: Shown): Logprobs {
  return {
    content: tokens.map((token) => ({
      ...showToken(token, shown),
      top_logprobs: token.top.map((other) => showToken(other, shown)),
    })),
    refusal: null,
  }
}

/** A token with its true bytes; where they are no whole characters, its text spells them out as OpenAI does. */
function showToken(token: ShownToken, { namesAreIds }: Shown): ChatToken {
  return {
    token: namesAreIds ? `token_id:${token.id}` : (token.text ?? spelled(token)),
    logprob: token.logprob,
    bytes: Array.from(token.bytes),
  }
}
