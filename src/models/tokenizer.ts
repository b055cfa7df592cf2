// Text to ids and ids to bytes. Merging is @huggingface/tokenizers' work; here are the choices around it: special tokens are found by
// our own scan, so that they can stay plain text inside a user's words, and ids become bytes instead of text, so that a character
// split over tokens can be put together again.

import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers'
import { type AddedToken, readTokenizerFiles, type TokenizerFiles } from './tokenizer-files.js'

export interface Tokenizer {
  /**
   * Ids of a text.
   * @param options addSpecialTokens: put the ids around the text that the model was trained with, such as a BOS (default true).
   * allowSpecial: the name of a special token becomes its id; otherwise it is text like any other (default false).
   */
  encode(text: string, options?: { addSpecialTokens?: boolean; allowSpecial?: boolean }): number[]
  /** Bytes that a token contributes to a text, to be read only. Special tokens: their name's; ids without a token: none. */
  tokenBytes(id: number): Uint8Array
  isSpecial(id: number): boolean
  /** One more than the highest id. */
  size: number
  /** Length of the longest result of tokenBytes. */
  maxTokenBytes: number
  bosToken: string | null
  eosToken: string | null
  bosTokenId: number | null
}

// Hugging Face's regular expressions take Unicode's white space where JavaScript's \s also takes U+FEFF and leaves out U+0085.
const BYTE_LEVEL_WORDS =
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu

/** What is used of the library's tokenizer (its own types do not resolve under Node's module rules). */
interface Merger {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] }
  pre_tokenizer: { pattern: RegExp; add_prefix_space: boolean }
}

/**
 * Reads tokenizer.json and tokenizer_config.json. Byte-level BPE is built so far; other kinds are refused by name.
 * @throws ModelError
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer> {
  const files = await readTokenizerFiles(folder)
  const merger = makeMerger(files)
  const special = new Map(files.specialTokens.map((token) => [token.content, token]))
  const specialIds = new Set(files.specialTokens.map(({ id }) => id))
  const specialPattern = makeSpecialPattern(files.specialTokens)
  const { bytes, starts, longest } = makeTokenBytes(files)
  const size = starts.length - 1

  function encodePlain(text: string): number[] {
    return text === '' ? [] : merger.encode(text, { add_special_tokens: false }).ids
  }

  function encodeWithSpecial(text: string): number[] {
    if (specialPattern === null) return encodePlain(text)
    // Splitting by a pattern with one group gives text, name, text, name, ..., text.
    const pieces = text.split(specialPattern)
    return pieces.flatMap((piece, index) => {
      if (index % 2 === 1) return special.get(piece)?.id ?? []
      const before = special.get(pieces[index - 1] ?? '')
      const after = special.get(pieces[index + 1] ?? '')
      const right = before?.rstrip ? piece.trimStart() : piece
      return encodePlain(after?.lstrip ? right.trimEnd() : right)
    })
  }

  return {
    encode(text, { addSpecialTokens = true, allowSpecial = false } = {}) {
      const ids = allowSpecial ? encodeWithSpecial(text) : encodePlain(text)
      return addSpecialTokens ? [...files.idsBefore, ...ids, ...files.idsAfter] : ids
    },
    tokenBytes: (id) => bytes.subarray(starts[id] ?? 0, starts[id + 1] ?? 0),
    isSpecial: (id) => specialIds.has(id),
    size,
    maxTokenBytes: longest,
    bosToken: files.bosToken,
    eosToken: files.eosToken,
    bosTokenId: files.bosTokenId,
  }
}

/** The library's tokenizer without special tokens: text goes in, no name of a special token is ever found in it. */
function makeMerger(files: TokenizerFiles): Merger {
  const { normalizer, pre_tokenizer, decoder, model } = files.json
  const merger: Merger = new HuggingFaceTokenizer(
    { normalizer, pre_tokenizer, decoder, model, post_processor: null, added_tokens: files.plainAddedTokens },
    {}, // what tokenizer_config.json asks for is applied here, not by the library
  )
  merger.pre_tokenizer.pattern = BYTE_LEVEL_WORDS
  merger.pre_tokenizer.add_prefix_space = files.addPrefixSpace
  return merger
}

/** Finds the names of special tokens, of two that begin alike the longer one. */
function makeSpecialPattern(tokens: AddedToken[]): RegExp | null {
  const names = tokens.map(({ content }) => content).toSorted((a, b) => b.length - a.length)
  return names.length === 0
    ? null
    : new RegExp(`(${names.map((name) => name.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|')})`)
}

/** The bytes of all tokens back to back, and where each one starts. */
function makeTokenBytes(files: TokenizerFiles): { bytes: Uint8Array; starts: Uint32Array; longest: number } {
  const table = byteTable()
  const tokens = new Map<number, Uint8Array>()
  for (const [token, id] of files.vocab) tokens.set(id, byteLevelBytes(token, table))
  for (const { id, content } of [...files.plainAddedTokens, ...files.specialTokens])
    tokens.set(id, Buffer.from(content))

  let size = 0
  for (const id of tokens.keys()) size = Math.max(size, id + 1)
  const starts = new Uint32Array(size + 1)
  let longest = 0
  for (let id = 0; id < size; id++) {
    const length = tokens.get(id)?.length ?? 0
    starts[id + 1] = (starts[id] ?? 0) + length
    longest = Math.max(longest, length)
  }
  const bytes = new Uint8Array(starts[size] ?? 0)
  for (const [id, token] of tokens) bytes.set(token, starts[id] ?? 0)
  return { bytes, starts, longest }
}

/** A byte-level token's characters stand for bytes; a token with any other character is text as it is. */
function byteLevelBytes(token: string, table: Map<string, number>): Uint8Array {
  const bytes = new Uint8Array(token.length)
  for (let at = 0; at < token.length; at++) {
    const byte = table.get(token[at] as string)
    if (byte === undefined) return Buffer.from(token)
    bytes[at] = byte
  }
  return bytes
}

/** GPT-2's table: printable Latin-1 stands for itself, the other 68 bytes in order for U+0100, U+0101, ... */
function byteTable(): Map<string, number> {
  const table = new Map<string, number>()
  let other = 256
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    table.set(String.fromCharCode(printable ? byte : other++), byte)
  }
  return table
}
