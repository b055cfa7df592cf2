// A tokenizer's definition → data that encodes and decodes, in memory that threads can share without a copy.

import { type BpeData, compileBpe } from './bpe.js'
import { type ByteStrings, packByteStrings } from './byte-strings.js'
import { byteLevelBytes } from './byte-table.js'
import type { AddedToken, Decoding, NormalizerStep, PreTokenizerStep, TokenizerDefinition } from './definition.js'
import { makeNormalizer } from './normalizer.js'
import { compileUnigram, type UnigramData } from './unigram.js'

export interface TokenizerData {
  added: AddedToken[]
  normalizer: NormalizerStep[]
  preTokenizer: PreTokenizerStep[]
  model: BpeData | UnigramData
  /** what each token adds to a text; of special tokens their names */
  tokens: ByteStrings
  /** the longest of them */
  maxTokenBytes: number
  start: 'keep' | 'strip one space' | 'strip first token'
  idsBefore: number[]
  idsAfter: number[]
  bosToken: string | null
  eosToken: string | null
  bosTokenId: number | null
}

export function compileTokenizer(definition: TokenizerDefinition): TokenizerData {
  const { added, normalizer, preTokenizer, model, decoding, bosToken } = definition
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id))
  const bytesOf = tokenBytesOf(decoding)
  const bytes = new Map<number, Uint8Array>()
  const vocab = model.type === 'BPE' ? model.vocab : model.vocab.map(([piece], id) => [piece, id] as const)
  for (const [token, id] of vocab) bytes.set(id, bytesOf(token))
  const normalize = makeNormalizer(normalizer)
  for (const { id, content, special: isName, normalized } of added) {
    // Where it is looked for in normalized text it stands for normalized text.
    const text = normalized ? normalize(content) : content
    bytes.set(id, isName || decoding.type === 'ByteLevel' ? Buffer.from(isName ? content : text) : bytesOf(text))
  }
  let size = 0
  let maxTokenBytes = 0
  for (const [id, token] of bytes) {
    size = Math.max(size, id + 1)
    maxTokenBytes = Math.max(maxTokenBytes, token.length)
  }
  return {
    added,
    normalizer,
    preTokenizer,
    model:
      model.type === 'BPE'
        ? compileBpe(model, preTokenizer.at(-1)?.type === 'ByteLevel', special)
        : compileUnigram(model, special),
    tokens: packByteStrings(bytes, size),
    maxTokenBytes,
    start: decoding.type === 'ByteLevel' ? 'keep' : decoding.start,
    idsBefore: definition.idsBefore,
    idsAfter: definition.idsAfter,
    bosToken,
    eosToken: definition.eosToken,
    bosTokenId: bosToken === null ? null : idOf(definition, bosToken),
  }
}

/** The id of a token by its text. */
export function idOf({ added, model }: Pick<TokenizerDefinition, 'added' | 'model'>, token: string): number | null {
  const found = added.find(({ content }) => content === token)?.id
  if (found !== undefined) return found
  if (model.type === 'BPE') return model.vocab.get(token) ?? null
  const index = model.vocab.findLastIndex(([piece]) => piece === token)
  return index < 0 ? null : index
}

function tokenBytesOf(decoding: Decoding): (token: string) => Uint8Array {
  if (decoding.type === 'ByteLevel') return byteLevelBytes
  const { replace, byte_fallback } = decoding
  return (token) => {
    if (byte_fallback && /^<0x[0-9A-Fa-f]{2}>$/.test(token))
      return Uint8Array.of(Number.parseInt(token.slice(3, 5), 16))
    return Buffer.from(replace.reduce((text, step) => text.replaceAll(step.text, step.content), token))
  }
}
