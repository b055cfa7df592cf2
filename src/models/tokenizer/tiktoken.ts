// qwen.tiktoken: one token a line, its bytes in base64 and its rank, as the first Qwen models have it.

import { ModelError } from '../model-error.js'
import { byteCharacters } from './byte-table.js'
import type { TokenizerDefinition } from './definition.js'
import { mergesOf } from './merges.js'
import { MAX_ID } from './tokenizer-json.js'

/** Qwen's pattern and special tokens are part of its program, not of the file. */
const WORDS =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
const SPECIAL = [
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  ...Array.from({ length: 205 }, (_, i) => `<|extra_${i}|>`),
]

export function readTiktoken(file: string, text: string): TokenizerDefinition {
  const vocab = new Map<string, number>()
  text.split(/\r?\n/).forEach((line, index) => {
    if (line === '') return
    const [base64 = '', rank = ''] = line.split(' ')
    const bytes = Buffer.from(base64, 'base64')
    if (bytes.length === 0 || !/^\d{1,7}$/.test(rank) || Number(rank) > MAX_ID)
      throw new ModelError(`${file}: line ${index + 1}: expected a token in base64 and its rank`)
    let token = ''
    for (const byte of bytes) token += byteCharacters[byte]
    vocab.set(token, Number(rank))
  })
  const merges = mergesOf(vocab)
  // Here of merges to the same token none is better.
  for (let i = 0; i < merges.length; i += 4) merges[i + 2] = merges[i + 3] as number
  let next = 0
  for (const id of vocab.values()) next = Math.max(next, id + 1)
  return {
    added: SPECIAL.map((content, i) => ({
      id: next + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: [{ type: 'NFC' }],
    preTokenizer: [
      { type: 'Split', pattern: { regex: WORDS }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ],
    model: {
      type: 'BPE',
      vocab,
      merges,
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      // Tiktoken looks a word up before it merges.
      ignore_merges: true,
    },
    decoding: { type: 'ByteLevel' },
    idsBefore: [],
    idsAfter: [],
    bosToken: null,
    eosToken: '<|endoftext|>',
  }
}
