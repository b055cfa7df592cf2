// Every request parameter of the servers that people come from: honoured, refused by its name, or ignored with a line in the log.

import { describe, expect, test } from 'vitest'
import { startFakeServer } from './fake_server.js'

/**
 * refused: 400 with its name, because ignoring it would change what the client gets.
 * no effect: it changes nothing here, and should not.
 * unknown: nobody here knows it; it is ignored, and the log says so at level debug.
 */
type Fate = 'honoured' | 'refused' | 'no effect' | 'unknown'

/** A name, its fates in completions and chats, a value, and a wrong one, which is told by its name. */
type Row = [name: string, completions: Fate, chat: Fate, value: unknown, wrong?: unknown]

const [honoured, refused, none, unknown] = ['honoured', 'refused', 'no effect', 'unknown'] as const

const rows: Row[] = [
  // length
  ['max_tokens', honoured, honoured, 5, 1.5],
  ['max_completion_tokens', unknown, honoured, 5, 'x'],
  ['min_tokens', honoured, honoured, 1, -1],
  ['n_predict', unknown, unknown, 5],
  ['max_new_tokens', unknown, unknown, 5],
  ['t_max_predict_ms', unknown, unknown, 5],
  // how tokens are chosen
  ['temperature', honoured, honoured, 0.5, 3],
  ['top_p', honoured, honoured, 0.5, 2],
  ['top_k', honoured, honoured, 5, -2],
  ['min_p', honoured, honoured, 0.1, 2],
  ['seed', honoured, honoured, 5, 'x'],
  ['repetition_penalty', honoured, honoured, 1.5, 0],
  ['frequency_penalty', honoured, honoured, 1, 3],
  ['presence_penalty', honoured, honoured, 1, 3],
  ['logit_bias', honoured, honoured, { 5: 1 }, { 5: 101 }],
  ['allowed_token_ids', honoured, honoured, [5], ['x']],
  ['bad_words', honoured, honoured, ['x'], [5]],
  ['dynatemp_range', unknown, unknown, 0.5],
  ['top_n_sigma', unknown, unknown, 1],
  ['min_keep', unknown, unknown, 1],
  ['top_p_min', unknown, unknown, 0.1],
  ['typical_p', unknown, unknown, 0.5],
  ['xtc_probability', unknown, unknown, 0.5],
  ['mirostat', unknown, unknown, 2],
  ['dry_multiplier', unknown, unknown, 0.5],
  ['samplers', unknown, unknown, ['top_k']],
  ['repeat_penalty', unknown, unknown, 1.5],
  ['repeat_last_n', unknown, unknown, 64],
  ['repetition_detection', refused, refused, {}],
  ['logits_processors', refused, refused, ['x']],
  ['custom_logit_processor', unknown, unknown, 'x'],
  ['vllm_xargs', refused, refused, {}],
  // how many answers
  ['n', honoured, honoured, 2, 0],
  ['best_of', honoured, honoured, 2, 21],
  ['n_cmpl', unknown, unknown, 2],
  ['use_beam_search', honoured, honoured, true, 'x'],
  ['length_penalty', honoured, honoured, 1, 'x'],
  ['early_stopping', honoured, honoured, false, 'x'],
  // the prompt
  ['prompt', honoured, unknown, 'x', 5],
  ['messages', unknown, honoured, [{ role: 'user', content: 'x' }], []],
  ['prompt_embeds', refused, refused, 'x'],
  ['suffix', refused, unknown, 'x'],
  ['echo', honoured, refused, true, 'x'],
  ['truncate_prompt_tokens', honoured, honoured, 1, -2],
  ['truncation_side', refused, refused, 'right'],
  ['add_special_tokens', honoured, honoured, false, 'x'],
  ['add_generation_prompt', unknown, honoured, true, 'x'],
  ['continue_final_message', unknown, honoured, false, 'x'],
  ['chat_template', unknown, refused, 'x'], // unless the server was started for it
  ['chat_template_kwargs', unknown, honoured, {}, 'x'],
  ['documents', unknown, refused, [{}]],
  ['return_full_text', unknown, unknown, true],
  // where it ends
  ['stop', honoured, honoured, ['wor'], ''],
  ['stop_token_ids', honoured, honoured, [5], 5],
  ['include_stop_str_in_output', honoured, honoured, true, 'x'],
  ['ignore_eos', honoured, honoured, false, 'x'],
  ['stop_regex', unknown, unknown, 'x'],
  ['no_stop_trim', unknown, unknown, true],
  // what is shown
  ['logprobs', honoured, honoured, 2, 'x'],
  ['top_logprobs', unknown, honoured, 2, 21],
  ['prompt_logprobs', honoured, honoured, 0, 21],
  ['logprob_start_len', unknown, unknown, 0],
  ['logprob_token_ids', honoured, honoured, [5], ['x']],
  ['skip_special_tokens', honoured, honoured, false, 'x'],
  ['spaces_between_special_tokens', refused, refused, false],
  ['detokenize', refused, refused, false],
  ['return_token_ids', honoured, honoured, true, 'x'],
  ['return_tokens_as_token_ids', honoured, honoured, true, 'x'],
  ['return_prompt_text', refused, refused, true],
  ['return_token_offsets', refused, refused, true],
  ['stream', honoured, honoured, false, 'x'],
  ['stream_interval', refused, refused, 5],
  ['timings_per_token', unknown, unknown, true],
  // structure, tools, reasoning
  ['response_format', refused, refused, { type: 'json_object' }],
  ['structured_outputs', refused, refused, { choice: ['a'] }],
  ['guided_json', refused, refused, {}],
  ['guided_regex', refused, refused, 'a'],
  ['guided_choice', refused, refused, ['a']],
  ['guided_grammar', refused, refused, 'a'],
  ['grammar', unknown, unknown, 'root ::= "a"'],
  ['tools', unknown, refused, [{}]],
  ['tool_choice', unknown, refused, 'required'],
  ['functions', unknown, refused, [{}]],
  ['function_call', unknown, refused, { name: 'x' }],
  ['parallel_tool_calls', unknown, none, true, 'x'],
  ['reasoning_effort', unknown, honoured, 'none', 5],
  ['include_reasoning', unknown, none, true, 'x'],
  ['thinking_token_budget', unknown, refused, 5],
  // other content
  ['audio', unknown, refused, {}],
  ['modalities', unknown, refused, ['audio']],
  ['web_search_options', unknown, refused, {}],
  ['moderation', unknown, refused, {}],
  ['verbosity', unknown, none, 'low', 'x'],
  ['prediction', unknown, none, { type: 'content', content: 'x' }, { type: 'x' }],
  // the server
  ['model', honoured, honoured, 'org/fake', 5],
  ['priority', honoured, honoured, 5, 'x'],
  ['cache_salt', honoured, honoured, 'x', ''],
  ['cache_prompt', unknown, unknown, false],
  ['id_slot', unknown, unknown, 1],
  ['lora_request', refused, refused, {}],
  ['kv_transfer_params', refused, refused, {}],
  ['ec_transfer_params', refused, refused, {}],
  ['bootstrap_host', unknown, unknown, 'x'],
  ['request_id', unknown, unknown, 'x'],
  ['user', none, none, 'x', 5],
  ['metadata', none, none, { a: 'b' }, 5],
  ['store', none, none, true, 5],
  ['service_tier', none, none, 'auto', 'x'],
  ['safety_identifier', none, none, 'x', 5],
  ['prompt_cache_key', none, none, 'x', 5],
  ['prompt_cache_retention', none, none, '24h', 5],
  ['prompt_cache_options', none, none, { mode: 'explicit', ttl: '30m' }, { mode: 'x' }],
]

const endpoints = [
  { path: '/v1/completions', column: 1, base: { prompt: 'ab', seed: 1 }, values: {}, beside: { logprobs: 0 } },
  {
    path: '/v1/chat/completions',
    column: 2,
    base: { messages: [{ role: 'user', content: 'a' }], seed: 1 },
    values: { logprobs: true },
    beside: { logprobs: true },
  },
] as const

/** Rows whose value is what a request has without it; what they do has tests of its own. */
const defaults = new Set([
  ...['length_penalty', 'early_stopping', 'ignore_eos', 'add_special_tokens', 'skip_special_tokens', 'stream', 'model'],
  ...['add_generation_prompt', 'continue_final_message', 'chat_template_kwargs', 'reasoning_effort'],
  ...['include_stop_str_in_output', 'use_beam_search'],
])

const needLogprobs = new Set(['top_logprobs', 'logprob_token_ids', 'return_tokens_as_token_ids'])

describe.each(endpoints)('$path', ({ path, base, column, values, beside }) => {
  test('every row', async () => {
    const { post, engine, logged } = await startFakeServer()
    /** What came of a request: its status, its error, and all that it changed. */
    async function ask(body: object) {
      logged.length = 0
      const before = engine.seen.length
      const response = await post(path, { ...base, ...body })
      const answer = (await response.json()) as { error?: { param: string; code: string }; choices?: unknown }
      const requests = engine.seen.slice(before).map(({ prompt, sampling }) => ({ prompt, sampling }))
      const ignored = String(logged.findLast(({ event }) => event === 'fields_ignored')?.fields ?? '').split(',')
      return { status: response.status, error: answer.error, effect: [requests, answer.choices], ignored }
    }
    const [without, withLogprobs] = [(await ask({})).effect, (await ask(beside)).effect]
    for (const row of rows) {
      const [name, , , given, wrong] = row
      const fate = row[column]
      const value = (values as Record<string, unknown>)[name] ?? given
      const more = needLogprobs.has(name) ? beside : {}
      const { status, error, effect, ignored } = await ask({ ...more, [name]: value })
      if (fate === 'refused') {
        expect([name, status, error]).toMatchObject([name, 400, { param: name, code: 'unsupported_parameter' }])
        continue
      }
      expect([name, status, error]).toEqual([name, 200, undefined])
      if (fate === 'unknown') expect([name, ignored]).toEqual([name, [name]])
      if (fate === 'honoured') expect([name, ignored]).toEqual([name, ['']])
      const plain = more === beside ? withLogprobs : without
      if (fate === 'honoured' && !defaults.has(name)) expect([name, effect]).not.toEqual([name, plain])
      if (fate === 'no effect' || fate === 'unknown') expect([name, effect]).toEqual([name, plain])
      if (wrong === undefined || fate === 'unknown') continue
      const told = await ask({ ...more, [name]: wrong })
      expect([name, told.status, told.error?.param]).toEqual([name, 400, expect.stringMatching(`^${name}`)])
    }
  })
})
