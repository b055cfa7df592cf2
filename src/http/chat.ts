// POST /v1/chat/completions

import { randomUUID } from 'node:crypto'
import type { ShownChoice, ShownToken } from '../generation/logprobs.js'
import type { Delta } from '../generation/request.js'
import { readJson } from './body.js'
import type { Ctx } from './context.js'
import { checkModel, needModel } from './ready.js'
import { parseChat } from './schema.js'
import { sse } from './sse.js'
import { sharedParams, UsageCount } from './usage.js'

interface ChatToken {
  token: string
  logprob: number
  bytes: number[]
}

interface Logprobs {
  content: (ChatToken & { top_logprobs: ChatToken[] })[]
  refusal: null
}

export async function createChatCompletion(c: Ctx): Promise<Response> {
  const { generation, fingerprint } = needModel(c)
  const state = c.get('state')
  const body = parseChat(await readJson(c), state.log)
  checkModel(c, body.model)
  const withLogprobs = body.logprobs === true
  const prepared = await generation.prepareChat(body.messages, {
    ...sharedParams(body),
    max_tokens: body.max_completion_tokens ?? body.max_tokens,
    max_tokens_param: body.max_completion_tokens === undefined ? 'max_tokens' : 'max_completion_tokens',
    num_logprobs: withLogprobs ? (body.top_logprobs ?? 0) : undefined,
  })
  const count = new UsageCount(c, prepared)
  const deltas = generation.generate(prepared, c.req.raw.signal)
  const head = (object: string) => ({
    id,
    object,
    created,
    model: state.modelName,
    system_fingerprint: fingerprint,
  })
  const id = `chatcmpl-${randomUUID().replaceAll('-', '')}`
  const created = Math.floor(Date.now() / 1000)
  const { n } = prepared.params
  if (body.stream) {
    const withUsage = body.stream_options?.include_usage === true
    return sse(c, chunks(deltas, count, head('chat.completion.chunk'), n, withLogprobs, withUsage))
  }
  const choices = Array.from({ length: n }, (_, index) => ({
    index,
    message: { role: 'assistant', content: '', refusal: null },
    logprobs: withLogprobs ? showTokens([]) : null,
    finish_reason: null as Delta['finish_reason'],
  }))
  for await (const delta of deltas) {
    count.add(delta)
    const choice = choices[delta.index]
    if (!choice) continue
    choice.message.content += delta.text
    choice.finish_reason = delta.finish_reason
    choice.logprobs?.content.push(...showTokens(delta.tokens).content)
  }
  return c.json({ ...head('chat.completion'), choices, usage: count.usage })
}

async function* chunks(
  deltas: AsyncGenerator<Delta>,
  count: UsageCount,
  head: object,
  n: number,
  withLogprobs: boolean,
  withUsage: boolean,
): AsyncGenerator<object> {
  const chunk = (index: number, delta: object, logprobs: Logprobs | null, finish_reason: Delta['finish_reason']) => ({
    ...head,
    choices: [{ index, delta, logprobs, finish_reason }],
    ...(withUsage ? { usage: null } : {}),
  })
  let begun = false
  for await (const delta of deltas) {
    if (!begun) {
      // Not before the first token: until then an error can still have its HTTP status.
      begun = true
      for (let index = 0; index < n; index++) yield chunk(index, { role: 'assistant', content: '' }, null, null)
    }
    count.add(delta)
    if (delta.text !== '' || delta.tokens.length > 0) {
      yield chunk(delta.index, { content: delta.text }, withLogprobs ? showTokens(delta.tokens) : null, null)
    }
    if (delta.finish_reason !== null) yield chunk(delta.index, {}, null, delta.finish_reason)
  }
  if (withUsage) yield { ...head, choices: [], usage: count.usage }
}

function showTokens(tokens: readonly ShownChoice[]): Logprobs {
  return {
    content: tokens.map((token) => ({ ...showToken(token), top_logprobs: token.top.map(showToken) })),
    refusal: null,
  }
}

/** A token with its true bytes; where they are no whole characters, its text spells them out as OpenAI does. */
function showToken({ text, bytes, logprob }: ShownToken): ChatToken {
  return {
    token: text ?? Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join(''),
    logprob,
    bytes: Array.from(bytes),
  }
}
