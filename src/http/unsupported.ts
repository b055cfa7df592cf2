// Parameters of OpenAI and vLLM that are not built: refused by name, because ignoring them would change what the client gets.

import { ApiError } from '../errors.js'

type Test = (value: unknown) => boolean

const anything: Test = () => false
const only =
  (...values: unknown[]): Test =>
  (value) =>
    values.includes(value)
const emptyOr =
  (...values: unknown[]): Test =>
  (value) =>
    values.includes(value) || (Array.isArray(value) && value.length === 0)

const onlyText: Test = (value) => Array.isArray(value) && value.every((modality) => modality === 'text')

/** Name → is this value the default, which changes nothing? null never gets here. */
const both: Record<string, Test> = {
  response_format: (value) => typeof value === 'object' && value !== null && 'type' in value && value.type === 'text',
  structured_outputs: anything,
  guided_json: anything,
  guided_regex: anything,
  guided_choice: anything,
  guided_grammar: anything,
  detokenize: only(true),
  logits_processors: emptyOr(),
  prompt_embeds: anything,
  kv_transfer_params: anything,
  ec_transfer_params: anything,
  repetition_detection: anything,
  spaces_between_special_tokens: only(true),
  truncation_side: only('left'),
  stream_interval: only(1),
  return_prompt_text: only(false),
  return_token_offsets: only(false),
  vllm_xargs: anything,
  lora_request: anything,
}

const completions: Record<string, Test> = {
  ...both,
  suffix: only(''),
}

const chat: Record<string, Test> = {
  ...both,
  tools: anything,
  // Without tools these two change nothing. OpenAI refuses both then, vLLM "auto" alone.
  tool_choice: only('none', 'auto'),
  web_search_options: anything,
  // Who asks for it may show what it has not judged.
  moderation: anything,
  functions: anything,
  function_call: only('none', 'auto'),
  audio: anything,
  modalities: onlyText,
  echo: only(false),
  documents: emptyOr(),
  thinking_token_budget: anything,
}

const plainText: Test = (value) => {
  const { format } = value as { format?: { type?: unknown } | null }
  return format == null || format.type === 'text'
}

const responses: Record<string, Test> = {
  ...both,
  access_programs: anything,
  n: only(1),
  tools: emptyOr(),
  tool_choice: only('none', 'auto'),
  text: plainText,
  truncation: only('disabled'),
  conversation: anything,
  prompt: anything,
  context_management: emptyOr(),
  moderation: anything,
  max_tool_calls: anything,
  best_of: only(1),
  use_beam_search: only(false),
  prompt_logprobs: anything,
  echo: only(false),
  return_token_ids: only(false),
  return_tokens_as_token_ids: only(false),
}

const messages: Record<string, Test> = {
  tools: emptyOr(),
  tool_choice: (value) =>
    (value as { type?: unknown }).type === 'none' || (value as { type?: unknown }).type === 'auto',
  thinking: (value) => (value as { type?: unknown }).type === 'disabled',
  mcp_servers: emptyOr(),
  container: anything,
  output_config: anything,
  output_format: anything,
  context_management: anything,
}

/** Of a session and of a response; the older names of audio's parameters too. */
const realtime: Record<string, Test> = {
  type: only('realtime'),
  audio: anything,
  output_modalities: onlyText,
  modalities: onlyText,
  tools: emptyOr(),
  tool_choice: only('none', 'auto'),
  prompt: anything,
  tracing: anything,
  truncation: only('disabled'),
  include: emptyOr(),
  voice: anything,
  speed: anything,
  turn_detection: anything,
  input_audio_format: anything,
  output_audio_format: anything,
  input_audio_transcription: anything,
  input_audio_noise_reduction: anything,
  use_beam_search: only(false),
}

const embeddings: Record<string, Test> = {
  messages: anything,
  task: anything,
}

/** Of scores and rankings. */
const relevance: Record<string, Test> = {
  max_tokens_per_doc: anything,
  max_chunks_per_doc: anything,
  rank_fields: anything,
  truncate_prompt_tokens: anything,
}

const tables = { embeddings, relevance, completions, chat, responses, messages, realtime }

/** @throws ApiError for the first field that asks for something that is not built */
export function refuseUnsupported(endpoint: keyof typeof tables, fields: Readonly<Record<string, unknown>>): void {
  for (const [name, isDefault] of Object.entries(tables[endpoint])) {
    if (!Object.hasOwn(fields, name) || isDefault(fields[name])) continue
    throw new ApiError('unsupported_parameter', `'${name}' is not supported by this server yet. Leave it out.`, name)
  }
}

const paths: Readonly<Record<string, keyof typeof tables>> = {
  '/v1/completions': 'completions',
  '/v1/chat/completions': 'chat',
  '/v1/responses': 'responses',
  '/v1/messages': 'messages',
  '/v1/embeddings': 'embeddings',
  '/v1/score': 'relevance',
  '/v1/rerank': 'relevance',
}

/** Names that an endpoint refuses unless they have their default. */
export function unsupportedNames(path: string): string[] {
  const table = paths[path]
  return table === undefined ? [] : Object.keys(tables[table]).sort()
}

/** Names that are refused, for the README and its test. */
export const unsupportedParameters: readonly string[] = [
  ...new Set([...Object.keys(completions), ...Object.keys(chat)]),
].sort()
