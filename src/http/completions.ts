// POST /v1/completions

import { randomUUID } from 'node:crypto'
import type { ShownChoice, ShownToken } from '../generation/logprobs.js'
import type { Delta } from '../generation/request.js'
import { readJson } from './body.js'
import type { Ctx } from './context.js'
import { checkModel, needModel } from './ready.js'
import { parseCompletion } from './schema.js'
import { sse } from './sse.js'
import { sharedParams, UsageCount } from './usage.js'

interface Logprobs {
  text_offset: number[]
  token_logprobs: number[]
  tokens: string[]
  top_logprobs: Record<string, number>[]
}

export async function createCompletion(c: Ctx): Promise<Response> {
  const { generation, fingerprint } = needModel(c)
  const state = c.get('state')
  const body = parseCompletion(await readJson(c), state.log)
  checkModel(c, body.model)
  const prepared = await generation.prepareCompletion(body.prompt, {
    ...sharedParams(body),
    max_tokens: body.max_tokens,
    max_tokens_param: 'max_tokens',
    num_logprobs: body.logprobs,
  })
  const count = new UsageCount(c, prepared)
  const deltas = generation.generate(prepared, c.req.raw.signal)
  const head = {
    id: `cmpl-${randomUUID().replaceAll('-', '')}`,
    object: 'text_completion',
    created: Math.floor(Date.now() / 1000),
    model: state.modelName,
    system_fingerprint: fingerprint,
  }
  const withLogprobs = body.logprobs !== undefined
  if (body.stream) {
    const withUsage = body.stream_options?.include_usage === true
    return sse(c, chunks(deltas, count, head, withLogprobs, withUsage))
  }
  const numChoices = prepared.prompts.length * prepared.params.n
  const choices = Array.from({ length: numChoices }, (_, index) => ({
    text: '',
    index,
    logprobs: withLogprobs ? emptyLogprobs() : null,
    finish_reason: null as Delta['finish_reason'],
  }))
  for await (const delta of deltas) {
    count.add(delta)
    const choice = choices[delta.index]
    if (!choice) continue
    choice.text += delta.text
    choice.finish_reason = delta.finish_reason
    if (choice.logprobs) addLogprobs(choice.logprobs, delta.tokens)
  }
  return c.json({ ...head, choices, usage: count.usage })
}

async function* chunks(
  deltas: AsyncGenerator<Delta>,
  count: UsageCount,
  head: object,
  withLogprobs: boolean,
  withUsage: boolean,
): AsyncGenerator<object> {
  const usage = withUsage ? { usage: null } : {}
  for await (const delta of deltas) {
    count.add(delta)
    if (delta.text === '' && delta.tokens.length === 0 && delta.finish_reason === null) continue
    const logprobs = withLogprobs ? addLogprobs(emptyLogprobs(), delta.tokens) : null
    yield {
      ...head,
      choices: [{ text: delta.text, index: delta.index, logprobs, finish_reason: delta.finish_reason }],
      ...usage,
    }
  }
  if (withUsage) yield { ...head, choices: [], usage: count.usage }
}

function emptyLogprobs(): Logprobs {
  return { text_offset: [], token_logprobs: [], tokens: [], top_logprobs: [] }
}

function addLogprobs(logprobs: Logprobs, tokens: readonly ShownChoice[]): Logprobs {
  for (const token of tokens) {
    logprobs.text_offset.push(token.offset)
    logprobs.token_logprobs.push(token.logprob)
    logprobs.tokens.push(tokenName(token))
    // Two ids with one text share a key: the more probable one stays. Best first, so the earlier wins.
    const top: Record<string, number> = Object.create(null)
    for (const other of [...token.top, token]) top[tokenName(other)] ??= other.logprob
    logprobs.top_logprobs.push(top)
  }
  return logprobs
}

/** A token as the legacy API names it: bytes that are no whole characters are spelled out. */
function tokenName({ text, bytes }: ShownToken): string {
  return text ?? `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`
}
