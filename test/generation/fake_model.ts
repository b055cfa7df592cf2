// A model without weights for tests above the engine: one token per byte, and a few that make texts interesting.

import type { Model } from '../../src/models/model.js'
import { plain } from '../../src/models/spec.js'
import type { EncodeOptions, Tokenizer } from '../../src/models/tokenizer.js'

export const EOS = 256
export const USER = 257
export const ASSISTANT = 258
/** a stop token that is no special token: its text must not appear either */
export const PLAIN_END = 259
/** first id of `words` */
const FIRST_WORD = 260

const specials = new Map([
  ['<|endoftext|>', EOS],
  ['<|user|>', USER],
  ['<|assistant|>', ASSISTANT],
])

/** Tokens of several bytes, among them whole and broken characters. */
const words = ['Hello', ' world', '😀', ' STOP', 'ST', 'OP', '\n\n'].map((word) => Uint8Array.from(Buffer.from(word)))

/** The id of a word. */
export function word(text: string): number {
  const index = words.findIndex((bytes) => Buffer.from(bytes).toString() === text)
  if (index < 0) throw new Error(`no word ${text}`)
  return FIRST_WORD + index
}

/** One token per byte. */
export function bytesOf(text: string): number[] {
  return [...Buffer.from(text)]
}

export interface SeenEncode extends EncodeOptions {
  text: string
}

/** @param seen takes a note of every call of encode */
export function fakeTokenizer(overrides: Partial<Tokenizer> = {}, seen: SeenEncode[] = []): Tokenizer {
  const tokenBytes = (id: number) => {
    if (id < 256) return Uint8Array.of(id)
    if (id === PLAIN_END) return Buffer.from('[end]')
    for (const [text, special] of specials) if (special === id) return Buffer.from(text)
    return words[id - FIRST_WORD] ?? new Uint8Array()
  }
  return {
    encode(text, options = {}) {
      seen.push({ text, ...options })
      const { allowSpecial, plain = [] } = options
      if (!allowSpecial) return bytesOf(text)
      let start = 0
      return text.split(/(<\|\w+\|>)/).flatMap((part) => {
        const at = start
        const isPlain = plain.some(([from, to]) => from <= at && at < to)
        start += part.length
        return (isPlain ? undefined : specials.get(part)) ?? bytesOf(part)
      })
    },
    tokenBytes,
    firstTokenBytes: tokenBytes,
    isSpecial: (id) => [...specials.values()].includes(id),
    size: FIRST_WORD + words.length,
    bosToken: null,
    eosToken: '<|endoftext|>',
    bosTokenId: null,
    ...overrides,
  }
}

/** A template such as the bundled model's. */
export const chatTemplate = `{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{ '<|assistant|>' + message['content'] + eos_token }}
{%- elif message['role'] == 'system' -%}{{ message['content'] + '\\n' }}
{%- else -%}{{ '<|user|>' + message['content'] }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}`

export function fakeModel(overrides: Partial<Model> = {}): Model {
  const tokenizer = overrides.tokenizer ?? fakeTokenizer()
  return {
    name: 'fake',
    folder: '/nowhere/fake',
    created: 1700000000,
    architecture: 'GPTNeoXForCausalLM',
    spec: {
      ...plain,
      vocab_size: 300,
      num_sampled_ids: tokenizer.size,
      hidden_size: 8,
      num_layers: 1,
      num_heads: 1,
      num_kv_heads: 1,
      head_dim: 8,
      intermediate_size: 8,
      max_position: 256,
      rope_frequencies: Float32Array.of(1),
      norm_eps: 1e-5,
      attention_scale: 0.35,
      activation: 'gelu',
      topology: 'parallel',
      tie_word_embeddings: false,
    },
    checkpointDtype: 'float16',
    num_parameters: 1000,
    num_vector_parameters: 100,
    float16Problem: null,
    tensors: [],
    files: [],
    chatTemplate,
    templateTokens: { eos_token: '<|endoftext|>' },
    stopTokenIds: [EOS, PLAIN_END],
    generationDefaults: {},
    warnings: [],
    ...overrides,
    tokenizer,
  }
}

/** The same numbers each run (mulberry32), 0 up to 1. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
