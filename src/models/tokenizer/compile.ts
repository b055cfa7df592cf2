// A tokenizer's definition → data that encodes and decodes, in memory that threads can share without a copy.

import { ModelError } from '../model-error.js'
import { type BpeData, compileBpe } from './bpe.js'
import { type ByteStrings, packByteStrings } from './byte-strings.js'
import { byteLevelBytes } from './byte-table.js'
import type { AddedToken, Decoding, NormalizerStep, PreTokenizerStep, TokenizerDefinition } from './definition.js'
import { makeNormalizer } from './normalizer.js'
import { TimeLimitError, withinTime } from './time-limit.js'
import { compileUnigram, type UnigramData } from './unigram.js'

export interface TokenizerData {
  added: CompiledToken[]
  normalizer: NormalizerStep[]
  preTokenizer: PreTokenizerStep[]
  model: BpeData | UnigramData
  /** what each token adds to a text; of special tokens their names */
  tokens: ByteStrings
  start: 'keep' | 'strip one space' | 'strip first token'
  idsBefore: number[]
  idsAfter: number[]
  bosToken: string | null
  eosToken: string | null
  bosTokenId: number | null
  /** it uses regular expressions that came with the model, which may take any time */
  hasPatterns: boolean
}

/** An added token with the text that it is found by. */
export interface CompiledToken extends AddedToken {
  lookedFor: string
}

/**
 * @param limitMs milliseconds for the model's regular expressions to normalize the model's own tokens
 * @throws ModelError when they take longer
 */
export function compileTokenizer(definition: TokenizerDefinition, limitMs = 5000): TokenizerData {
  const { normalizer, preTokenizer, model, decoding, bosToken } = definition
  const hasPatterns = [...normalizer, ...preTokenizer].some((step) => 'pattern' in step && 'regex' in step.pattern)
  const added = compileAdded(definition, hasPatterns, limitMs)
  const special = new Set(added.filter((token) => token.special).map(({ id }) => id))
  const bytesOf = tokenBytesOf(decoding)
  const bytes = new Map<number, Uint8Array>()
  const vocab = model.type === 'BPE' ? model.vocab : model.vocab.map(([piece], id) => [piece, id] as const)
  for (const [token, id] of vocab) bytes.set(id, bytesOf(token))
  for (const { id, content, special: isName, lookedFor } of added) {
    const text = isName ? content : lookedFor
    bytes.set(id, isName || decoding.type === 'ByteLevel' ? Buffer.from(text) : bytesOf(text))
  }
  let size = 0
  for (const id of bytes.keys()) size = Math.max(size, id + 1)
  return {
    added,
    normalizer,
    preTokenizer,
    model:
      model.type === 'BPE'
        ? compileBpe(model, preTokenizer.at(-1)?.type === 'ByteLevel', special)
        : compileUnigram(model, special),
    tokens: packByteStrings(bytes, size),
    start: decoding.type === 'ByteLevel' ? 'keep' : decoding.start,
    idsBefore: definition.idsBefore,
    idsAfter: definition.idsAfter,
    bosToken,
    eosToken: definition.eosToken,
    bosTokenId: bosToken === null ? null : idOf(definition, bosToken),
    hasPatterns,
  }
}

/** A token that is looked for in normalized text stands for normalized text. */
function compileAdded(
  { added, normalizer }: TokenizerDefinition,
  hasPatterns: boolean,
  limitMs: number,
): CompiledToken[] {
  const normalize = makeNormalizer(normalizer)
  const all = () =>
    added.map((token) => ({ ...token, lookedFor: token.normalized ? normalize(token.content) : token.content }))
  if (!hasPatterns) return all()
  try {
    return withinTime(limitMs, all)
  } catch (error) {
    if (!(error instanceof TimeLimitError)) throw error
    throw new ModelError(
      `tokenizer: expected regular expressions that come to an end, found one in the normalizer that takes more than ${limitMs} ms for the names of the added tokens`,
    )
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
