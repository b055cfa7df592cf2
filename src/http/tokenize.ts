// POST /tokenize and /detokenize, GET /tokenizer_info: with the names of vLLM, and as lm-evaluation-harness asks for them.

import { z } from 'zod'
import { ApiError } from '../errors.js'
import type { Call, Reply } from './call.js'
import type { Ctx } from './context.js'
import { tokenIdsSchema } from './fields.js'
import { checkModel, needModel } from './ready.js'
import { json } from './respond.js'
import { parseChat, renderOptions } from './schema.js'
import { fieldsOf, missing, parse } from './validate.js'

/** Ids of one text: more than any context holds. */
const maxTokens = 4194304

export const textSchema = z.object({
  model: z.string().optional(),
  prompt: z.string(),
  add_special_tokens: z.boolean().optional(),
  return_token_strs: z.boolean().optional(),
})

export const detokenizeSchema = z.object({ model: z.string().optional(), tokens: tokenIdsSchema(maxTokens) })

export async function tokenize(call: Call, input: unknown): Promise<Reply> {
  const { generation } = needModel(call.state)
  const fields = fieldsOf(input)
  let tokens: Int32Array
  if (fields.messages !== undefined) {
    const body = parseChat(input, call.state.log)
    checkModel(call.state, body.model)
    const special = body.add_special_tokens ?? false
    tokens = await generation.prompts.chat(body.messages, renderOptions(body), special, true, call.signal)
  } else {
    const body = parse(textSchema, fields, call.state.log)
    checkModel(call.state, body.model)
    tokens = await generation.prompts.encode(body.prompt, body.add_special_tokens ?? true, call.signal)
  }
  const names = fields.return_token_strs === true ? Array.from(tokens, (id) => generation.prompts.tokenText(id)) : null
  return {
    json: {
      count: tokens.length,
      max_model_len: generation.maxModelLen,
      tokens: Array.from(tokens),
      token_strs: names,
    },
  }
}

export async function detokenize(call: Call, input: unknown): Promise<Reply> {
  const { generation } = needModel(call.state)
  const fields = fieldsOf(input)
  if (fields.tokens === undefined) throw missing('tokens')
  const { model, tokens } = parse(detokenizeSchema, fields, call.state.log)
  checkModel(call.state, model)
  return {
    json: { prompt: tokens.length === 0 ? '' : generation.prompts.decode(generation.prompts.ids(tokens, 'tokens')) },
  }
}

/**
 * What lm-evaluation-harness asks before it lets this server tokenize for it. It then never adds BOS, so for a model that wants one
 * the answer is 404, and the harness tokenizes for itself.
 */
export function tokenizerInfo(c: Ctx): Response {
  const { generation } = needModel(c.get('state'))
  const { bosToken, eosToken, addsSpecialTokens, chatTemplate } = generation.prompts.tokenizerFacts()
  if (addsSpecialTokens) {
    throw new ApiError(
      'unknown_url',
      "This model's tokenizer puts tokens such as BOS around a text, which remote tokenization would leave out. Use the tokenizer of the checkpoint: tokenizer_backend=huggingface, tokenizer=<folder>, add_bos_token=True.",
    )
  }
  return json(c, {
    tokenizer_class: 'PreTrainedTokenizerFast',
    model_max_length: generation.maxModelLen,
    bos_token: bosToken,
    eos_token: eosToken,
    pad_token: null,
    chat_template: chatTemplate,
  })
}
