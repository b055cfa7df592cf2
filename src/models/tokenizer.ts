// Text to ids and ids to bytes, as Hugging Face's tokenizers do it: added tokens are found, the text between them is normalized, split
// into words, and each word encoded by the model. Ids become bytes instead of text, so that a character split over tokens can be put
// together again.

import { AddedTokens, type Section } from './tokenizer/added-tokens.js'
import { Bpe } from './tokenizer/bpe.js'
import { byteStringOf } from './tokenizer/byte-strings.js'
import { compileTokenizer, type TokenizerData } from './tokenizer/compile.js'
import type { AddedToken } from './tokenizer/definition.js'
import { readTokenizer } from './tokenizer/folder.js'
import { IdList } from './tokenizer/id-list.js'
import { makeNormalizer } from './tokenizer/normalizer.js'
import { makePreTokenizer } from './tokenizer/pre-tokenizer.js'
import { Unigram } from './tokenizer/unigram.js'

export type { TokenizerData } from './tokenizer/compile.js'

export interface EncodeOptions {
  /** put the ids around the text that the model was trained with, such as a BOS (default true) */
  addSpecialTokens?: boolean
  /** the name of a special token becomes its id; otherwise it is text like any other (default false) */
  allowSpecial?: boolean
  /** UTF-16 ranges, in order, where it is text all the same */
  plain?: readonly (readonly [start: number, end: number])[]
  /** more ids than these are not worth the work: the result may end after them */
  maxTokens?: number | undefined
}

export interface Tokenizer {
  /** Ids of a text. Half a surrogate pair counts as U+FFFD. */
  encode(text: string, options?: EncodeOptions): number[]
  /** Bytes that a token contributes to a text, to be read only. Special tokens: their name's; ids without a token: none. */
  tokenBytes(id: number): Uint8Array
  /** The same for the token that begins a text: SentencePiece's models leave a space out there. */
  firstTokenBytes(id: number): Uint8Array
  isSpecial(id: number): boolean
  /** One more than the highest id. */
  size: number
  bosToken: string | null
  eosToken: string | null
  bosTokenId: number | null
  /** What another thread needs to make the same tokenizer. */
  data?: TokenizerData
}

/** A tokenizer whose encoding can pause. */
export interface SteppingTokenizer extends Tokenizer {
  /** `encode` in steps of a few milliseconds. */
  encodeSteps(text: string, options?: EncodeOptions): Generator<void, Int32Array>
  data: TokenizerData
  /** it uses regular expressions that came with the model, which may take any time */
  hasPatterns: boolean
}

/**
 * Reads a folder's tokenizer.
 * @throws ModelError
 */
export async function loadTokenizer(folder: string): Promise<SteppingTokenizer> {
  return makeTokenizer(compileTokenizer(await readTokenizer(folder)))
}

export function makeTokenizer(data: TokenizerData): SteppingTokenizer {
  const normalize = makeNormalizer(data.normalizer)
  const preTokenizer = makePreTokenizer(data.preTokenizer)
  const model = data.model.type === 'BPE' ? new Bpe(data.model) : new Unigram(data.model)
  const specialIds = new Set(data.added.filter(({ special }) => special).map(({ id }) => id))
  const inText = data.added.filter(({ normalized }) => !normalized)
  const inNormalized = data.added.filter(({ normalized }) => normalized)
  const finders = {
    raw: new AddedTokens(inText.map((token) => [token.content, token])),
    /** where some special tokens are text, the others are looked for before places move */
    rawAndSpecial: new AddedTokens(
      [...inText, ...inNormalized.filter(({ special }) => special)].map((token) => [token.content, token]),
    ),
    normalized: new AddedTokens(inNormalized.map((token) => [token.lookedFor, token])),
  }

  function* encodeText(
    text: string,
    atStart: boolean,
    out: IdList,
    maxTokens: number,
    pace: { count: number },
  ): Generator<void> {
    for (const word of preTokenizer.split(text, atStart)) {
      const rest = model.encode(word, out)
      if (rest !== null) yield* upTo(rest, out, maxTokens)
      if ((++pace.count & 0x3ff) === 0) yield
      if (out.length > maxTokens) return
    }
  }

  function* encodeSteps(given: string, options: EncodeOptions = {}): Generator<void, Int32Array> {
    const { addSpecialTokens = true, allowSpecial = false, plain = [], maxTokens = Number.POSITIVE_INFINITY } = options
    const text = given.toWellFormed()
    const out = new IdList()
    if (addSpecialTokens) out.pushAll(data.idsBefore)
    const inPlain = overlaps(plain)
    /** words and parts of the text so far */
    const pace = { count: 0 }
    const [raw, inner] = allowSpecial && plain.length > 0 ? [finders.rawAndSpecial, false] : [finders.raw, allowSpecial]
    const sections = raw.split(text, (token, start, end) => !token.special || (allowSpecial && !inPlain(start, end)))
    for (const section of sections) {
      if (out.length > maxTokens) break
      if ('id' in section) {
        out.push(section.id)
        continue
      }
      const normalized = normalize(text.slice(section.start, section.end))
      let atStart = section.start === 0
      const allowed = (token: AddedToken) => !token.special || inner
      const parts: Section[] =
        inNormalized.length === 0
          ? [{ start: 0, end: normalized.length }]
          : finders.normalized.split(normalized, allowed)
      for (const part of parts) {
        if ((++pace.count & 0x3ff) === 0) yield
        if ('id' in part) out.push(part.id)
        else if (part.end > part.start)
          yield* encodeText(normalized.slice(part.start, part.end), atStart, out, maxTokens, pace)
        atStart = false
      }
    }
    if (addSpecialTokens) out.pushAll(data.idsAfter)
    return out.slice()
  }

  const size = data.tokens.starts.length - 1
  const tokenBytes = (id: number) => byteStringOf(data.tokens, id)
  return {
    encode(text, options) {
      const steps = encodeSteps(text, options)
      for (;;) {
        const step = steps.next()
        if (step.done) return Array.from(step.value)
      }
    },
    encodeSteps,
    tokenBytes,
    firstTokenBytes(id) {
      const bytes = tokenBytes(id)
      if (data.start === 'keep' || specialIds.has(id)) return bytes
      if (data.start === 'strip first token') return bytes.filter((byte) => byte !== 0x20)
      return bytes[0] === 0x20 ? bytes.subarray(1) : bytes
    },
    isSpecial: (id) => specialIds.has(id),
    size,
    bosToken: data.bosToken,
    eosToken: data.eosToken,
    bosTokenId: data.bosTokenId,
    data,
    hasPatterns: data.hasPatterns,
  }
}

/** Work that ends early when there are more ids than wanted. */
function* upTo(work: Generator<void>, out: IdList, maxTokens: number): Generator<void> {
  for (const _ of work) {
    yield
    if (out.length > maxTokens) return
  }
}

/** Whether a range overlaps one of a list's. Ranges must be asked for in order, so that each of the list is passed once. */
function overlaps(list: readonly (readonly [start: number, end: number])[]): (start: number, end: number) => boolean {
  let next = 0
  return (start, end) => {
    while (next < list.length && (list[next]?.[1] ?? 0) <= start) next++
    return next < list.length && (list[next]?.[0] ?? 0) < end
  }
}
