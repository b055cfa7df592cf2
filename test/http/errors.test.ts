// Every way to be wrong, and the exact answer to it.

import { expect, test } from 'vitest'
import { ApiError, errorKinds } from '../../src/errors.js'
import { maxBodyBytes } from '../../src/http/body.js'
import { unsupportedParameters } from '../../src/http/unsupported.js'
import { fakeModel, fakeTokenizer } from '../generation/fake_model.js'
import { json, startFakeServer } from './fake_server.js'

const invalid = 'invalid_request_error'
const messages = [{ role: 'user', content: 'Hi' }]

type Case = [name: string, body: unknown, code: string, param: string | null, message: string]

const long = 'x'.repeat(100)

/** @param least max_tokens */
const shared = (base: object, least: number): Case[] => [
  ['no object', [1], 'invalid_type', null, 'The body must be a JSON object, but got an array of 1.'],
  [
    'temperature, a string',
    { ...base, temperature: 'hot' },
    'invalid_type',
    'temperature',
    `'temperature' must be a number, but got "hot".`,
  ],
  [
    'temperature, too high',
    { ...base, temperature: 2.5 },
    'decimal_above_max_value',
    'temperature',
    "'temperature' must be at most 2, but got 2.5.",
  ],
  [
    'temperature, negative',
    { ...base, temperature: -1 },
    'decimal_below_min_value',
    'temperature',
    "'temperature' must be at least 0, but got -1.",
  ],
  [
    'top_p, too high',
    { ...base, top_p: 1.01 },
    'decimal_above_max_value',
    'top_p',
    "'top_p' must be at most 1, but got 1.01.",
  ],
  ['top_k, a fraction', { ...base, top_k: 1.5 }, 'invalid_type', 'top_k', "'top_k' must be an integer, but got 1.5."],
  [
    'top_k, below -1',
    { ...base, top_k: -2 },
    'integer_below_min_value',
    'top_k',
    "'top_k' must be at least -1, but got -2.",
  ],
  [
    'min_p, a list',
    { ...base, min_p: [0.1] },
    'invalid_type',
    'min_p',
    "'min_p' must be a number, but got an array of 1.",
  ],
  [
    'top_k, beyond all integers',
    { ...base, top_k: 1e30, min_tokens: -1e30 },
    'integer_below_min_value',
    'min_tokens',
    "'min_tokens' must be at least 0, but got -1e+30.\n'top_k' must be at most 4194304, but got 1e+30.",
  ],
  ['n, zero', { ...base, n: 0 }, 'integer_below_min_value', 'n', "'n' must be at least 1, but got 0."],
  ['n, huge', { ...base, n: 1e9 }, 'integer_above_max_value', 'n', "'n' must be at most 128, but got 1000000000."],
  [
    'max_tokens, negative',
    { ...base, max_tokens: -1 },
    'integer_below_min_value',
    'max_tokens',
    `'max_tokens' must be at least ${least}, but got -1.`,
  ],
  [
    'max_tokens, beyond all integers',
    { ...base, max_tokens: 1e30 },
    'integer_above_max_value',
    'max_tokens',
    "'max_tokens' must be at most 16777216, but got 1e+30.",
  ],
  [
    'max_tokens, true',
    { ...base, max_tokens: true },
    'invalid_type',
    'max_tokens',
    "'max_tokens' must be an integer, but got true.",
  ],
  [
    'stream, a string',
    { ...base, stream: 'yes' },
    'invalid_type',
    'stream',
    `'stream' must be true or false, but got "yes".`,
  ],
  [
    'stream_options alone',
    { ...base, stream_options: {} },
    'invalid_value',
    'stream_options',
    "'stream_options' needs 'stream' to be true.",
  ],
  [
    'include_usage, a number',
    { ...base, stream: true, stream_options: { include_usage: 1 } },
    'invalid_type',
    'stream_options.include_usage',
    "'stream_options.include_usage' must be true or false, but got 1.",
  ],
  [
    'presence_penalty',
    { ...base, presence_penalty: 3 },
    'decimal_above_max_value',
    'presence_penalty',
    "'presence_penalty' must be at most 2, but got 3.",
  ],
  [
    'frequency_penalty',
    { ...base, frequency_penalty: -3 },
    'decimal_below_min_value',
    'frequency_penalty',
    "'frequency_penalty' must be at least -2, but got -3.",
  ],
  ['seed, a fraction', { ...base, seed: 0.5 }, 'invalid_type', 'seed', "'seed' must be an integer, but got 0.5."],
  [
    'seed, beyond 64 bits',
    { ...base, seed: 1e300 },
    'integer_above_max_value',
    'seed',
    "'seed' must be at most 9223372036854775807, but got 1e+300.",
  ],
  [
    'seed, below 64 bits',
    { ...base, seed: -1e300 },
    'integer_below_min_value',
    'seed',
    "'seed' must be at least -9223372036854775808, but got -1e+300.",
  ],
  [
    'stop, a number',
    { ...base, stop: 5 },
    'invalid_type',
    'stop',
    "'stop' must be a string or an array of strings, but got 5.",
  ],
  ['stop, empty', { ...base, stop: '' }, 'empty_string', 'stop', "'stop' must not be an empty string."],
  [
    'stop, an empty one among others',
    { ...base, stop: ['a', ''] },
    'empty_string',
    'stop.1',
    "'stop.1' must not be an empty string.",
  ],
  [
    'stop, 65 of them',
    { ...base, stop: Array(65).fill('a') },
    'array_above_max_length',
    'stop',
    "'stop' must have at most 64 items, but got 65.",
  ],
  [
    'stop, endless',
    { ...base, stop: 'x'.repeat(3000) },
    'string_above_max_length',
    'stop',
    "'stop' must have at most 2048 characters, but got 3000.",
  ],
  [
    'stop, half a character',
    { ...base, stop: '\ud83d' },
    'invalid_value',
    'stop',
    "'stop' must not hold half of a surrogate pair.",
  ],
  [
    'logit_bias, a list',
    { ...base, logit_bias: [1] },
    'invalid_type',
    'logit_bias',
    "'logit_bias' must be an object of token ids and numbers from -100 to 100, but got an array of 1.",
  ],
  [
    'logit_bias, a word',
    { ...base, logit_bias: { cat: 1 } },
    'invalid_value',
    'logit_bias',
    `'logit_bias' must be an object of token ids and numbers from -100 to 100, but got the key "cat".`,
  ],
  [
    'logit_bias, too much',
    { ...base, logit_bias: { 5: 101 } },
    'decimal_above_max_value',
    'logit_bias.5',
    "'logit_bias.5' must be at most 100, but got 101.",
  ],
  [
    'logit_bias, an id beyond the model',
    { ...base, logit_bias: { 5: 1, 999: 1 } },
    'invalid_value',
    'logit_bias',
    "'logit_bias' names the token id 999; this model's ids end at 266.",
  ],
  [
    'logit_bias, too many',
    { ...base, logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, id) => [id, 1])) },
    'array_above_max_length',
    'logit_bias',
    "'logit_bias' must have at most 1024 entries, but got 1025.",
  ],
  [
    'temperature, 1e309',
    { ...base, temperature: 'INFINITY' },
    'invalid_type',
    'temperature',
    "'temperature' must be a number, but got Infinity.",
  ],
  [
    'best_of, huge',
    { ...base, best_of: 1e9 },
    'integer_above_max_value',
    'best_of',
    "'best_of' must be at most 20, but got 1000000000.",
  ],
  [
    'min_tokens above max_tokens',
    { ...base, min_tokens: 5, max_tokens: 4 },
    'invalid_value',
    'min_tokens',
    "'min_tokens' must be at most 4, the most tokens of this completion.",
  ],
  [
    'min_tokens, negative',
    { ...base, min_tokens: -1 },
    'integer_below_min_value',
    'min_tokens',
    "'min_tokens' must be at least 0, but got -1.",
  ],
  [
    'repetition_penalty, zero',
    { ...base, repetition_penalty: 0 },
    'decimal_below_min_value',
    'repetition_penalty',
    "'repetition_penalty' must be at least 0.001, but got 0.",
  ],
  [
    'stop_token_ids, a string',
    { ...base, stop_token_ids: ['a'] },
    'invalid_type',
    'stop_token_ids.0',
    `'stop_token_ids.0' must be a token id, but got "a".`,
  ],
  [
    'stop_token_ids, a number',
    { ...base, stop_token_ids: 5 },
    'invalid_type',
    'stop_token_ids',
    "'stop_token_ids' must be an array of token ids, but got 5.",
  ],
  [
    'stop_token_ids, beyond the model',
    { ...base, stop_token_ids: [267] },
    'invalid_value',
    'stop_token_ids',
    "'stop_token_ids' names the token id 267; this model's ids end at 266.",
  ],
  [
    'allowed_token_ids, too many',
    { ...base, allowed_token_ids: Array(16385).fill(1) },
    'array_above_max_length',
    'allowed_token_ids',
    "'allowed_token_ids' must have at most 16384 items, but got 16385.",
  ],
  [
    'bad_words, an empty one',
    { ...base, bad_words: [''] },
    'empty_string',
    'bad_words.0',
    "'bad_words.0' must not be an empty string.",
  ],
  [
    'bad_words, too many',
    { ...base, bad_words: Array(65).fill('x') },
    'array_above_max_length',
    'bad_words',
    "'bad_words' must have at most 64 items, but got an array of 65.",
  ],
  [
    'logprob_token_ids alone',
    { ...base, logprob_token_ids: [1] },
    'invalid_value',
    'logprob_token_ids',
    "'logprob_token_ids' needs 'logprobs'.",
  ],
  [
    'truncate_prompt_tokens, below -1',
    { ...base, truncate_prompt_tokens: -2 },
    'integer_below_min_value',
    'truncate_prompt_tokens',
    "'truncate_prompt_tokens' must be at least -1, but got -2.",
  ],
  [
    'service_tier, nobody has it',
    { ...base, service_tier: 'gold' },
    'invalid_value',
    'service_tier',
    `'service_tier' must be one of "auto", "default", "flex", "scale", "priority", but got "gold".`,
  ],
  [
    'metadata, a number in it',
    { ...base, metadata: { a: 1 } },
    'invalid_type',
    'metadata.a',
    "'metadata.a' must be a string, but got 1.",
  ],
  [
    'metadata, too much of it',
    { ...base, metadata: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [i, ''])) },
    'array_above_max_length',
    'metadata',
    "'metadata' must have at most 16 entries, but got 17.",
  ],
  [
    'metadata, a long key',
    { ...base, metadata: { ['k'.repeat(65)]: '' } },
    'string_above_max_length',
    'metadata',
    "'metadata' must have keys of at most 64 characters, but got 65.",
  ],
  ['user, a number', { ...base, user: 5 }, 'invalid_type', 'user', "'user' must be a string, but got 5."],
  [
    'a long wrong value is cut',
    { ...base, n: long },
    'invalid_type',
    'n',
    `'n' must be an integer, but got "${'x'.repeat(60)}…".`,
  ],
  [
    'several wrong fields',
    { ...base, n: 0, top_p: 'x' },
    'invalid_type',
    'top_p',
    `'top_p' must be a number, but got "x".\n'n' must be at least 1, but got 0.`,
  ],
]

const cases: Record<string, Case[]> = {
  '/v1/completions': [
    ...shared({ prompt: 'Hi' }, 0),
    [
      'prompt, a number',
      { prompt: 5 },
      'invalid_type',
      'prompt',
      "'prompt' must be a string, an array of strings, an array of token ids or an array of arrays of token ids, but got 5.",
    ],
    ['prompt, no prompts', { prompt: [] }, 'empty_array', 'prompt', "'prompt' must not be an empty array."],
    [
      'prompt, one empty',
      { prompt: [[]] },
      'invalid_value',
      'prompt',
      "'prompt' is empty. This model needs at least one token to continue.",
    ],
    [
      'prompt, left out without BOS',
      {},
      'invalid_value',
      'prompt',
      "'prompt' is empty. This model needs at least one token to continue.",
    ],
    [
      'prompt, mixed ids',
      { prompt: [1, 'a'] },
      'invalid_type',
      'prompt.1',
      `'prompt.1' must be a token id, but got "a".`,
    ],
    [
      'prompt, a negative id',
      { prompt: [[1], [2, -1]] },
      'integer_below_min_value',
      'prompt.1.1',
      "'prompt.1.1' must be at least 0, but got -1.",
    ],
    [
      'prompt, an id beyond the model',
      { prompt: [1, 300] },
      'integer_above_max_value',
      'prompt',
      "'prompt' holds the token id 300; this model's ids end at 299.",
    ],
    [
      'prompt, an object among strings',
      { prompt: ['a', {}] },
      'invalid_type',
      'prompt.1',
      "'prompt.1' must be a string or an array of token ids, but got an object.",
    ],
    [
      'too many completions',
      { prompt: Array(17).fill('a'), n: 128 },
      'array_above_max_length',
      'prompt',
      "'prompt' times 'n' must be at most 2048 completions, but got 2176.",
    ],
    [
      'logprobs, true',
      { prompt: 'a', logprobs: true },
      'invalid_type',
      'logprobs',
      "'logprobs' must be an integer, but got true.",
    ],
    [
      'logprobs, too many',
      { prompt: 'a', logprobs: 21 },
      'integer_above_max_value',
      'logprobs',
      "'logprobs' must be at most 20, but got 21.",
    ],
    [
      'a prompt that fills the context',
      { prompt: Array(256).fill(97) },
      'context_length_exceeded',
      'prompt',
      "This model's maximum context length is 256 tokens. There are 256 tokens in your prompt, which leaves no room for a completion. Please shorten the prompt.",
    ],
    [
      'a prompt that cannot fit',
      { prompt: 'x'.repeat(10000) },
      'context_length_exceeded',
      'prompt',
      "This model's maximum context length is 256 tokens. There are at least 10000 tokens in your prompt. Please shorten the prompt.",
    ],
    [
      'prompt and max_tokens beyond the context',
      { prompt: 'x'.repeat(250), max_tokens: 7 },
      'context_length_exceeded',
      'prompt',
      "This model's maximum context length is 256 tokens. You asked for 257 tokens: 250 in the prompt and 7 in the completion (max_tokens). Please ask for less.",
    ],
  ],
  '/v1/chat/completions': [
    ...shared({ messages }, 1),
    ['no messages', {}, 'missing_required_parameter', 'messages', "'messages' is missing."],
    [
      'messages, a string',
      { messages: 'Hi' },
      'invalid_type',
      'messages',
      `'messages' must be an array, but got "Hi".`,
    ],
    [
      'messages, none',
      { messages: [] },
      'empty_array',
      'messages',
      "'messages' must have at least 1 item, but got none.",
    ],
    [
      'a message that is a string',
      { messages: ['Hi'] },
      'invalid_type',
      'messages.0',
      `'messages.0' must be an object, but got "Hi".`,
    ],
    [
      'no role',
      { messages: [{ content: 'Hi' }] },
      'missing_required_parameter',
      'messages.0.role',
      "'messages.0.role' is missing.",
    ],
    [
      'no content',
      { messages: [...messages, { role: 'user' }] },
      'missing_required_parameter',
      'messages.1.content',
      "'messages.1.content' is missing.",
    ],
    [
      'content, null',
      { messages: [{ role: 'assistant', content: null }] },
      'invalid_type',
      'messages.0.content',
      "'messages.0.content' must be a string or an array of content parts, but got null.",
    ],
    [
      'a role that nobody has',
      { messages: [{ role: 'king', content: 'Hi' }] },
      'invalid_value',
      'messages.0.role',
      `'messages.0.role' must be one of "system", "developer", "user", "assistant", but got "king".`,
    ],
    [
      'the role tool',
      { messages: [{ role: 'tool', content: 'Hi' }] },
      'unsupported_value',
      'messages.0.role',
      `'messages.0.role' must be one of "system", "developer", "user", "assistant", but got "tool", which this server does not support yet.`,
    ],
    [
      'an image',
      {
        messages: [
          {
            role: 'user',
            content: [
              { type: 'text', text: 'a' },
              { type: 'image_url', image_url: {} },
            ],
          },
        ],
      },
      'unsupported_value',
      'messages.0.content.1.type',
      `'messages.0.content.1.type' must be "text", the only kind of content that this server supports, but got "image_url".`,
    ],
    [
      'a content part without text',
      { messages: [{ role: 'user', content: [{ type: 'text' }] }] },
      'invalid_type',
      'messages.0.content.0.text',
      "'messages.0.content.0.text' must be a string, but got nothing.",
    ],
    [
      'a content part that is a string',
      { messages: [{ role: 'user', content: ['a'] }] },
      'invalid_type',
      'messages.0.content.0',
      `'messages.0.content.0' must be a content part such as {"type":"text","text":"…"}, but got "a".`,
    ],
    [
      'tool calls',
      { messages: [{ role: 'assistant', tool_calls: [{}] }] },
      'unsupported_parameter',
      'messages.0.tool_calls',
      "'messages.0.tool_calls' is not supported by this server yet.",
    ],
    [
      'logprobs, a number',
      { messages, logprobs: 1 },
      'invalid_type',
      'logprobs',
      "'logprobs' must be true or false, but got 1.",
    ],
    [
      'top_logprobs alone',
      { messages, top_logprobs: 2 },
      'invalid_value',
      'top_logprobs',
      "'top_logprobs' needs 'logprobs' to be true.",
    ],
    [
      'top_logprobs, too many',
      { messages, logprobs: true, top_logprobs: 21 },
      'integer_above_max_value',
      'top_logprobs',
      "'top_logprobs' must be at most 20, but got 21.",
    ],
    [
      'continue and begin at once',
      { messages, continue_final_message: true, add_generation_prompt: true },
      'invalid_value',
      'continue_final_message',
      "'continue_final_message' and 'add_generation_prompt' cannot both be true.",
    ],
    [
      'chat_template_kwargs, a list',
      { messages, chat_template_kwargs: [1] },
      'invalid_type',
      'chat_template_kwargs',
      "'chat_template_kwargs' must be an object, but got an array of 1.",
    ],
    [
      'chat_template_kwargs, an object in it',
      { messages, chat_template_kwargs: { a: {} } },
      'invalid_type',
      'chat_template_kwargs.a',
      "'chat_template_kwargs.a' must be a string, a number, true, false or null, but got an object.",
    ],
    [
      'chat_template_kwargs, a name that the template does not use',
      { messages, chat_template_kwargs: { enable_thinking: true } },
      'unsupported_value',
      'chat_template_kwargs',
      "'chat_template_kwargs' names 'enable_thinking', which this model's chat template does not use.",
    ],
    [
      'chat_template_kwargs, a name of the server',
      { messages, chat_template_kwargs: { messages: 'x' } },
      'unsupported_value',
      'chat_template_kwargs',
      "'chat_template_kwargs' names 'messages', which this model's chat template does not use.",
    ],
    [
      'reasoning_effort of a model that does not reason',
      { messages, reasoning_effort: 'high' },
      'unsupported_parameter',
      'reasoning_effort',
      "'reasoning_effort' is not supported by this model: its chat template does not use it. Leave it out.",
    ],
    [
      'messages that cannot fit',
      { messages: [{ role: 'user', content: 'x'.repeat(300) }] },
      'context_length_exceeded',
      'messages',
      "This model's maximum context length is 256 tokens. There are at least 302 tokens in your messages. Please shorten the messages.",
    ],
    [
      'max_completion_tokens beyond the context',
      { messages, max_completion_tokens: 253 },
      'context_length_exceeded',
      'messages',
      "This model's maximum context length is 256 tokens. You asked for 257 tokens: 4 in the messages and 253 in the completion (max_completion_tokens). Please ask for less.",
    ],
  ],
}

for (const [path, list] of Object.entries(cases)) {
  test.each(list)(`${path}: %s`, async (_, body, code, param, message) => {
    const { post, engine } = await startFakeServer()
    // JSON has no infinity of its own; 1e309 is one when it is read.
    const response = await post(path, JSON.stringify(body).replace('"INFINITY"', '1e309'))
    expect(await response.json()).toEqual({ error: { message, type: invalid, param, code } })
    expect(response.status).toBe(400)
    expect(engine.seen).toEqual([])
  })
}

test('a chat is no prompt', async () => {
  const { post } = await startFakeServer()
  const { error } = await json(await post('/v1/completions', { messages }))
  const message = "'messages' belong to /v1/chat/completions; here the text is 'prompt'."
  expect(error).toEqual({ message, type: invalid, param: 'messages', code: 'unsupported_parameter' })
})

test('what is not built is refused by name, and its default is not', async () => {
  const { post } = await startFakeServer()
  const values: Record<string, [wrong: unknown, fine: unknown]> = {
    echo: [true, false],
    suffix: ['x', ''],
    tools: [[{ type: 'function' }], null],
    tool_choice: ['required', 'auto'],
    web_search_options: [{}, null],
    moderation: [{}, null],
    functions: [[{}], null],
    function_call: [{ name: 'x' }, 'none'],
    response_format: [{ type: 'json_object' }, { type: 'text' }],
    audio: [{ voice: 'alloy' }, null],
    modalities: [['text', 'audio'], ['text']],
    detokenize: [false, true],
    logits_processors: [['x'], []],
    prompt_embeds: ['x', null],
    kv_transfer_params: [{}, null],
    ec_transfer_params: [{}, null],
    repetition_detection: [{}, null],
    spaces_between_special_tokens: [false, true],
    truncation_side: ['right', 'left'],
    stream_interval: [5, 1],
    return_prompt_text: [true, false],
    return_token_offsets: [true, false],
    vllm_xargs: [{}, null],
    lora_request: [{}, null],
    structured_outputs: [{ choice: ['a'] }, null],
    guided_json: [{}, null],
    guided_regex: ['a', null],
    guided_choice: [['a'], null],
    guided_grammar: ['a', null],
    documents: [[{}], []],
    thinking_token_budget: [5, null],
  }
  expect(Object.keys(values).sort()).toEqual([...unsupportedParameters])
  const refusals: string[] = []
  for (const [path, base] of [
    ['/v1/completions', { prompt: 'Hi' }],
    ['/v1/chat/completions', { messages }],
  ] as const) {
    for (const [name, [wrong, fine]] of Object.entries(values)) {
      const response = await post(path, { ...base, [name]: wrong })
      if (response.status === 400) {
        refusals.push(name)
        const message = `'${name}' is not supported by this server yet. Leave it out.`
        expect(await response.json()).toEqual({
          error: { message, type: invalid, param: name, code: 'unsupported_parameter' },
        })
      }
      expect([name, (await post(path, { ...base, [name]: fine })).status]).toEqual([name, 200])
    }
  }
  expect([...new Set(refusals)].sort()).toEqual([...unsupportedParameters])
  expect((await post('/v1/completions', { prompt: 'x', best_of: 3, n: 3 })).status).toBe(200)
  expect((await post('/v1/chat/completions', { messages, tool_choice: 'none' })).status).toBe(200)
  const called = { type: 'function', function: { name: 'x' } }
  expect((await post('/v1/chat/completions', { messages, tool_choice: called })).status).toBe(400)
  // As other servers answer, and clients send it back.
  const answered = { role: 'assistant', content: 'Yes?', tool_calls: [], function_call: null, refusal: null }
  expect((await post('/v1/chat/completions', { messages: [...messages, answered, ...messages] })).status).toBe(200)
})

test('fields that nobody knows are ignored, and noted at level debug', async () => {
  const { post, logged } = await startFakeServer()
  const response = await post('/v1/completions', { prompt: 'Hi', top_a: 5, typical_p: 1, ['x'.repeat(500)]: 1 })
  expect(response.status).toBe(200)
  const note = logged.find(({ event }) => event === 'fields_ignored')
  expect(note).toMatchObject({ level: 'debug' })
  expect(String(note?.fields)).toMatch(/^top_a,typical_p,x+$/)
  expect(String(note?.fields).length).toBeLessThanOrEqual(200)
})

test('null is the same as leaving a field out', async () => {
  const { post, engine } = await startFakeServer()
  const names = [
    'model',
    'max_tokens',
    'temperature',
    'top_p',
    'top_k',
    'min_p',
    'seed',
    'stop',
    'n',
    'stream',
    'stream_options',
    'logprobs',
  ]
  const nulls = Object.fromEntries(
    [...names, 'presence_penalty', 'frequency_penalty', 'logit_bias', 'ignore_eos', 'user'].map((name) => [name, null]),
  )
  expect((await post('/v1/completions', { ...nulls, prompt: 'Hi' })).status).toBe(200)
  expect(
    (await post('/v1/chat/completions', { ...nulls, messages, top_logprobs: null, max_completion_tokens: null }))
      .status,
  ).toBe(200)
  expect(engine.seen[0]?.sampling).toMatchObject({ max_tokens: 16, temperature: 1, num_logprobs: -1 })
  // The rest of the context: 256 less the 4 tokens of the rendered chat.
  expect(engine.seen[1]?.sampling).toMatchObject({ max_tokens: 252 })
})

test('the default of max_tokens shrinks to what fits; an explicit one does not', async () => {
  const { post, engine } = await startFakeServer()
  expect((await post('/v1/completions', { prompt: 'x'.repeat(250) })).status).toBe(200)
  expect(engine.seen[0]?.sampling.max_tokens).toBe(6)
  expect((await post('/v1/completions', { prompt: 'x'.repeat(255), max_tokens: 1 })).status).toBe(200)
})

test('valid values arrive at the engine', async () => {
  const { post, engine } = await startFakeServer()
  const body = {
    ...{
      prompt: 'Hi',
      model: 'org/fake',
      max_tokens: 9,
      temperature: 0,
      top_p: 0.5,
      top_k: 7,
      min_p: 0.1,
      presence_penalty: 1,
    },
    ...{
      frequency_penalty: -1,
      seed: -1,
      ignore_eos: false,
      logit_bias: { 5: -100, 7: 2.5 },
      logprobs: 0,
      user: 'me',
      stop: Array(64).fill('x'),
    },
    ...{
      repetition_penalty: 1.5,
      min_tokens: 1,
      stop_token_ids: [120],
      allowed_token_ids: [7, 260, 256],
      bad_words: ['ab', ' c'],
      logprob_token_ids: [9],
    },
  }
  expect((await post('/v1/completions', body)).status).toBe(200)
  expect(engine.seen[0]?.sampling).toEqual({
    ...{ max_tokens: 9, temperature: 0, top_p: 0.5, top_k: 7, min_p: 0.1, presence_penalty: 1, frequency_penalty: -1 },
    ...{ seed: 2 ** 53 - 1, choice: 0, priority: 0, cache_salt: 0, num_logprobs: 0, num_prompt_logprobs: -1 },
    ...{ ignore_eos: false, eos_token_ids: Int32Array.of(256, 259) },
    ...{ bias_ids: Int32Array.of(5, 7), bias_values: Float32Array.of(-100, 2.5) },
    ...{ repetition_penalty: 1.5, min_tokens: 1, stop_token_ids: Int32Array.of(120) },
    ...{ allowed_token_ids: Int32Array.of(7, 260, 256), logprob_token_ids: Int32Array.of(9) },
    // The tokenizer of the fake makes a space a token of its own, so no word has another form behind one.
    ...{ bad_word_ids: Int32Array.of(97, 98, 99), bad_word_sizes: Int32Array.of(2, 1) },
  })
})

test('the four forms of a prompt, and content in parts', async () => {
  const { post, engine } = await startFakeServer()
  for (const prompt of ['ab', ['ab', 'c'], [97, 98], [[97, 98], [99]]]) {
    expect((await post('/v1/completions', { prompt })).status).toBe(200)
  }
  expect(engine.seen.map(({ prompt }) => Buffer.from(prompt).toString())).toEqual(['ab', 'ab', 'c', 'ab', 'ab', 'c'])
  const content = [
    { type: 'text', text: 'a' },
    { type: 'text', text: 'b' },
  ]
  await post('/v1/chat/completions', {
    messages: [
      { role: 'developer', content: 'Be brief.' },
      { role: 'user', content },
    ],
  })
  expect(Buffer.from(engine.seen.at(-1)?.prompt.filter((id) => id < 256) ?? []).toString()).toBe('Be brief.\na\nb')
})

test('an unknown model is 404, an unnamed one is the one there is', async () => {
  const { post, url } = await startFakeServer()
  const error = (model: string) => ({
    error: {
      message: `The model '${model}' does not exist. This server has 'org/fake'.`,
      type: invalid,
      param: 'model',
      code: 'model_not_found',
    },
  })
  for (const path of ['/v1/completions', '/v1/chat/completions']) {
    const response = await post(path, { model: 'gpt-4', prompt: 'x', messages })
    expect([response.status, await response.json()]).toEqual([404, error('gpt-4')])
  }
  const response = await fetch(`${url}/v1/models/org/other`)
  expect([response.status, await response.json()]).toEqual([404, error('org/other')])
})

test('a base model says that it cannot chat', async () => {
  const { post } = await startFakeServer({ model: { chatTemplate: null } })
  const response = await post('/v1/chat/completions', { messages })
  expect([response.status, await response.json()]).toEqual([
    400,
    {
      error: {
        message:
          'This model has no chat template, so it cannot answer chats. Start the server with --chat-template <file>, builtin:plain or builtin:chatml, or use /v1/completions.',
        type: invalid,
        param: null,
        code: 'chat_template_missing',
      },
    },
  ])
  const broken = await startFakeServer({ model: { chatTemplate: '{% if %}' } })
  const answer = await broken.post('/v1/chat/completions', { messages })
  expect([answer.status, (await json(answer)).error.code]).toEqual([400, 'chat_template_missing'])
  const refusing = await startFakeServer({ model: { chatTemplate: "{{ raise_exception('No.') }}" } })
  const refusal = await json(await refusing.post('/v1/chat/completions', { messages }))
  expect(refusal.error).toEqual({
    message: "The model's chat template refuses these messages: No.",
    type: invalid,
    param: 'messages',
    code: 'chat_template_failed',
  })
})

test('what the engine refuses is the client’s error', async () => {
  const { post, engine } = await startFakeServer()
  engine.refusal = 'prompt of 3 tokens: expected room for 2'
  const response = await post('/v1/completions', { prompt: 'abc', stream: true })
  expect([response.status, (await json(response)).error]).toEqual([
    400,
    {
      message: `The engine refused this request: ${engine.refusal}`,
      type: invalid,
      param: null,
      code: 'request_refused',
    },
  ])
})

test('bodies that are no JSON, too large or of another type', async () => {
  const { post, url } = await startFakeServer()
  const error = async (response: Response) => [response.status, (await json(response)).error.code]
  const path = '/v1/completions'
  for (const body of ['', '{', '{"prompt": "x",}', 'null x', '\ufeff{]', `${'['.repeat(100000)}`]) {
    expect(await error(await post(path, body))).toEqual([400, 'invalid_json'])
  }
  const secret = await json(await post(path, '{"prompt": "my secret" oops}'))
  expect(secret.error.message).toMatch(
    /^The body could not be parsed as JSON: expected ',' or '}' .* at position 23\.$/,
  )
  const python = await json(await post(path, '{"stream": True, "prompt": "my secret"}'))
  expect(python.error.message).toBe('The body could not be parsed as JSON: unexpected T outside of a string.')
  const latin1 = await fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: Uint8Array.of(0x22, 0xe9, 0x22),
  })
  expect(await error(latin1)).toEqual([400, 'invalid_json'])
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx', '']) {
    expect(await error(await post(path, { prompt: 'x' }, { headers: { 'content-type': type } }))).toEqual([
      415,
      'unsupported_media_type',
    ])
  }
  const compressed = { 'content-type': 'application/json', 'content-encoding': 'gzip' }
  expect(await error(await post(path, { prompt: 'x' }, { headers: compressed }))).toEqual([
    415,
    'unsupported_media_type',
  ])
  for (const type of ['application/json; charset=utf-8', 'Application/JSON', 'application/vnd.api+json']) {
    expect((await post(path, { prompt: 'x' }, { headers: { 'content-type': type } })).status).toBe(200)
  }
  expect(await error(await post(path, JSON.stringify({ prompt: 'x'.repeat(maxBodyBytes) })))).toEqual([
    413,
    'request_too_large',
  ])
  // A body of unknown length is counted while it comes.
  const chunked = (parts: number) =>
    fetch(url + path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new ReadableStream({
        start(controller) {
          controller.enqueue(Buffer.from('{"prompt":"x"'))
          for (let i = 0; i < parts; i++) controller.enqueue(Buffer.alloc(1024 * 1024, ' '))
          controller.enqueue(Buffer.from('}'))
          controller.close()
        },
      }),
      duplex: 'half',
    } as RequestInit)
  expect((await chunked(2)).status).toBe(200)
  expect(await error(await chunked(9))).toEqual([413, 'request_too_large'])
})

test('deep and hostile JSON is just a wrong value', async () => {
  const { post } = await startFakeServer()
  const deep = `${'{"a":'.repeat(20000)}1${'}'.repeat(20000)}`
  for (const body of [
    `{"prompt": ${deep}}`,
    `{"messages": [${deep}]}`,
    `{"prompt":"x","logit_bias":${deep}}`,
    '{"__proto__":{"prompt":"x"},"n":"y"}',
  ]) {
    for (const path of Object.keys(cases)) expect((await post(path, body)).status).toBe(400)
  }
  const nested = (depth: number) => `{"prompt":"x","unknown":${'['.repeat(depth)}"]\\"["${']'.repeat(depth)}}`
  expect((await post('/v1/completions', nested(127))).status).toBe(200)
  expect((await json(await post('/v1/completions', nested(128)))).error).toMatchObject({
    message: 'The body could not be parsed as JSON: it is nested more than 128 deep.',
    code: 'invalid_json',
  })
  expect((await post('/v1/completions', '{"prompt":"x","temperature":1e999}')).status).toBe(400)
})

test('unknown addresses and wrong methods', async () => {
  const { url } = await startFakeServer()
  const ask = async (method: string, path: string) => {
    const response = await fetch(url + path, { method })
    return [response.status, (await json(response)).error, response.headers.get('allow')]
  }
  expect(await ask('GET', '/v1/engines')).toEqual([
    404,
    {
      message: 'There is nothing at GET /v1/engines; /docs shows what there is.',
      type: invalid,
      param: null,
      code: 'unknown_url',
    },
    null,
  ])
  for (const [path, meant] of [
    ['/chat/completions', '/v1/chat/completions'],
    ['/v1/v1/completions/', '/v1/completions'],
    ['/v1/tokenize', '/tokenize'],
    ['//v1/chat/completions', '/v1/chat/completions'],
    ['/v1//completions//', '/v1/completions'],
  ]) {
    const told = { message: `There is nothing at POST ${path}. Did you mean ${meant}?` }
    expect(await ask('POST', String(path))).toMatchObject([404, told, null])
  }
  expect(await ask('GET', '/v1/completions')).toEqual([
    405,
    { message: 'GET is not allowed here; use POST.', type: invalid, param: null, code: 'method_not_allowed' },
    'POST',
  ])
  expect((await ask('POST', '/v1/models'))[0]).toBe(405)
  expect((await ask('DELETE', '/v1/models/org/fake'))[0]).toBe(405)
  const options = await fetch(`${url}/v1/models`, { method: 'OPTIONS' })
  expect([options.status, options.headers.get('allow')]).toEqual([204, 'GET, HEAD'])
  const head = await fetch(`${url}/v1/models`, { method: 'HEAD' })
  expect([head.status, await head.text(), head.headers.get('x-request-id')]).toEqual([
    200,
    '',
    expect.stringMatching(/^req_/),
  ])
})

test('a bug in the server is 500 without its inside, and in the log with it', async () => {
  const tokenizer = fakeTokenizer({
    encode() {
      throw new Error('secret pointer')
    },
  })
  const { post, logged } = await startFakeServer({ model: fakeModel({ tokenizer }) })
  const response = await post('/v1/completions', { prompt: 'x' })
  expect([response.status, await response.text()]).toEqual([
    500,
    '{"error":{"message":"Something went wrong in the server.","type":"server_error","param":null,"code":"internal_error"}}',
  ])
  expect(JSON.stringify(logged)).toContain('secret pointer')
})

test('every row of the table gives a body with its four keys, and codes are strings or null', () => {
  for (const kind of errorKinds) {
    const error = new ApiError(kind, 'Because.', 'field')
    const body = error.body()
    expect(Object.keys(body)).toEqual(['error'])
    expect(Object.keys(body.error)).toEqual(['message', 'type', 'param', 'code'])
    expect(body.error.code === null || typeof body.error.code === 'string').toBe(true)
    // The SDKs try 5xx again, so a client's mistake is never one.
    expect(error.status >= 500).toBe(body.error.type === 'server_error')
    if (error.status === 503) expect(error.retryAfter).toBeGreaterThan(0)
  }
})
