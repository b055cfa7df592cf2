// tokenizer.json, checked: everything that the encoder does not know how to do is refused here by name, instead of giving ids that are
// almost right.

import type { Fields } from '../fields.js'
import { describe, ModelError } from '../model-error.js'
import { isCharsmap } from './charsmap.js'
import type {
  AddedToken,
  BpeModel,
  Decoding,
  NormalizerStep,
  Pattern,
  PreTokenizerStep,
  SplitBehavior,
  TokenizerDefinition,
  UnigramModel,
} from './definition.js'
import { readMerges } from './merges.js'
import { compilePattern, PatternError } from './regex.js'

export const MAX_ID = 4194303

/** It says which tokens are special, but not which one is BOS: other files do. */
export function readTokenizerJson(json: Fields): TokenizerDefinition {
  const around = readPostProcessor(json)
  return {
    added: json.objects('added_tokens').map((token) => readAddedToken(token, token.int('id', 0, MAX_ID))),
    normalizer: sequence(json.object('normalizer'), 'normalizers').map(readNormalizer),
    preTokenizer: sequence(json.object('pre_tokenizer'), 'pretokenizers').map(readPreTokenizer),
    model: readModel(json),
    decoding: readDecoder(json),
    idsBefore: around.before,
    idsAfter: around.after,
    bosToken: null,
    eosToken: null,
  }
}

export function readAddedToken(token: Fields, id: number): AddedToken {
  const content = token.text('content')
  if (!content) throw token.error('content', 'the text of the token')
  const special = token.flag('special', false)
  return {
    id,
    content,
    special,
    single_word: token.flag('single_word', false),
    lstrip: token.flag('lstrip', false),
    rstrip: token.flag('rstrip', false),
    normalized: token.flag('normalized', !special),
  }
}

/** The steps of a part that may be a Sequence, which may hold others. */
function sequence(part: Fields | undefined, key: string): Fields[] {
  if (part === undefined) return []
  return part.text('type') === 'Sequence' ? part.objects(key).flatMap((step) => sequence(step, key)) : [part]
}

function unknownType(part: Fields, known: string): ModelError {
  return part.error('type', `${known} (others are not built yet)`)
}

function readNormalizer(part: Fields): NormalizerStep {
  const type = part.text('type')
  switch (type) {
    case 'NFC':
    case 'NFD':
    case 'NFKC':
    case 'NFKD':
    case 'Lowercase':
    case 'ByteLevel':
      return { type }
    case 'Prepend':
      return { type, text: requiredText(part, 'prepend') }
    case 'Replace':
      return { type, pattern: readPattern(part), content: part.text('content') ?? '' }
    case 'Strip':
      return { type, left: part.flag('strip_left', true), right: part.flag('strip_right', true) }
    case 'Precompiled': {
      const base64 = requiredText(part, 'precompiled_charsmap')
      const charsmap = new Uint8Array(Buffer.from(base64, 'base64'))
      if (!isCharsmap(charsmap)) throw part.error('precompiled_charsmap', 'a trie and its texts in base64')
      return { type, charsmap }
    }
    default:
      throw unknownType(
        part,
        'NFC, NFD, NFKC, NFKD, Lowercase, ByteLevel, Prepend, Replace, Strip, Precompiled or Sequence',
      )
  }
}

function readPreTokenizer(part: Fields): PreTokenizerStep {
  const type = part.text('type')
  switch (type) {
    case 'ByteLevel':
      return {
        type,
        add_prefix_space: part.flag('add_prefix_space', true),
        use_regex: part.flag('use_regex', true),
      }
    case 'Metaspace':
      return {
        type,
        replacement: readReplacement(part),
        prepend_scheme: readPrepend(part),
        split: part.flag('split', true),
      }
    case 'Split':
      return {
        type,
        pattern: readPattern(part),
        behavior: readBehavior(part, undefined),
        invert: part.flag('invert', false),
      }
    case 'Digits':
      return { type, individual_digits: part.flag('individual_digits', false) }
    case 'Punctuation':
      return { type, behavior: readBehavior(part, 'Isolated') }
    case 'Whitespace':
    case 'WhitespaceSplit':
      return { type }
    default:
      throw unknownType(
        part,
        'ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace, WhitespaceSplit or Sequence',
      )
  }
}

/** Metaspace's character for a space. */
function readReplacement(part: Fields): string {
  const replacement = part.text('replacement') ?? '▁'
  if ([...replacement].length !== 1) throw part.error('replacement', 'one character')
  return replacement
}

/** Metaspace's rule, which older files call add_prefix_space. */
function readPrepend(part: Fields): 'always' | 'first' | 'never' {
  const scheme = part.text('prepend_scheme')
  if (scheme === undefined) return part.flag('add_prefix_space', true) ? 'always' : 'never'
  if (scheme === 'always' || scheme === 'first' || scheme === 'never') return scheme
  throw part.error('prepend_scheme', 'always, first or never')
}

function readPattern(part: Fields): Pattern {
  const pattern = part.object('pattern')
  const regex = pattern?.text('Regex')
  if (pattern !== undefined && regex !== undefined) {
    try {
      compilePattern({ regex })
    } catch (error) {
      throw error instanceof PatternError ? pattern.error('Regex', error.message) : error
    }
    return { regex }
  }
  const text = pattern?.text('String')
  if (text === undefined || text === '') throw part.error('pattern', 'a Regex or a String that is not empty')
  return { text }
}

const behaviors: SplitBehavior[] = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']

function readBehavior(part: Fields, fallback: SplitBehavior | undefined): SplitBehavior {
  const name = part.text('behavior') ?? fallback
  const behavior = behaviors.find((one) => one === name)
  if (behavior === undefined) throw part.error('behavior', behaviors.join(', '))
  return behavior
}

function readModel(json: Fields): BpeModel | UnigramModel {
  const model = json.object('model')
  if (model === undefined) throw json.error('model', 'an object')
  // Old files leave the type out.
  const type = model.text('type') ?? (model.has('merges') ? 'BPE' : model.has('unk_id') ? 'Unigram' : undefined)
  if (type === 'BPE') return readBpe(model)
  if (type === 'Unigram') return readUnigram(model)
  throw model.error('type', '"BPE" or "Unigram" (other kinds of tokenizer are not built yet)')
}

function readBpe(model: Fields): BpeModel {
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model.text(key)) throw model.error(key, 'none (not built yet)')
  }
  if (model.real('dropout', 0, 1, 0) > 0) throw model.error('dropout', 'none')
  const vocab = model.object('vocab')
  if (vocab === undefined) throw model.error('vocab', 'an object of tokens and ids')
  const merges = model.raw('merges')
  if (!Array.isArray(merges)) throw model.error('merges', 'a list of pairs')
  const ids = new Map(vocab.keys().map((token) => [token, vocab.int(token, 0, MAX_ID)]))
  return {
    type: 'BPE',
    vocab: ids,
    merges: readMerges(
      model.file,
      ids,
      merges.map((merge: unknown, index) => readPair(model, merge, index)),
    ),
    unk_token: model.text('unk_token') ?? null,
    fuse_unk: model.flag('fuse_unk', false),
    byte_fallback: model.flag('byte_fallback', false),
    ignore_merges: model.flag('ignore_merges', false),
  }
}

/** "left right" in older files, ["left", "right"] in newer ones. */
function readPair(model: Fields, merge: unknown, index: number): [string, string] {
  if (typeof merge === 'string') {
    const space = merge.indexOf(' ')
    if (space > 0 && space < merge.length - 1 && !merge.includes(' ', space + 1))
      return [merge.slice(0, space), merge.slice(space + 1)]
  } else if (Array.isArray(merge) && merge.length === 2) {
    const [left, right] = merge as unknown[]
    if (typeof left === 'string' && typeof right === 'string') return [left, right]
  }
  throw new ModelError(`${model.file}: model.merges[${index}]: expected a pair of tokens, found ${describe(merge)}`)
}

function readUnigram(model: Fields): UnigramModel {
  const vocab = model.raw('vocab')
  if (!Array.isArray(vocab)) throw model.error('vocab', 'a list of pieces and scores')
  return {
    type: 'Unigram',
    vocab: vocab.map((entry: unknown, index): [string, number] => {
      const [piece, score] = Array.isArray(entry) && entry.length === 2 ? (entry as unknown[]) : []
      if (typeof piece === 'string' && typeof score === 'number') return [piece, asRead(score)]
      throw new ModelError(
        `${model.file}: model.vocab[${index}]: expected a piece and its score, found ${describe(entry)}`,
      )
    }),
    unk_id: model.has('unk_id') ? model.int('unk_id', 0, vocab.length - 1) : null,
    byte_fallback: model.flag('byte_fallback', false),
  }
}

/**
 * A score as Hugging Face reads it: its digits as an integer, divided by a power of ten, which may be the next number beside the exact
 * one. It decides between ways to write a word whose scores have the same sum.
 */
function asRead(score: number): number {
  const [, sign, whole = '', fraction = '', power = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([-+]\d+))?$/.exec(`${score}`) ?? []
  const digits = Number(BigInt(whole + fraction))
  const exponent = Number(power) - fraction.length
  const value = exponent < 0 ? digits / Number(`1e${-exponent}`) : digits * Number(`1e${exponent}`)
  return sign === '-' ? -value : value
}

/** What goes around a text. */
function readPostProcessor(json: Fields): { before: number[]; after: number[] } {
  const around = { before: [] as number[], after: [] as number[] }
  for (const part of sequence(json.object('post_processor'), 'processors')) {
    switch (part.text('type')) {
      case 'ByteLevel': // it moves offsets and changes no id
        break
      case 'TemplateProcessing': {
        let side = around.before
        for (const item of part.objects('single')) {
          if (item.has('Sequence')) side = around.after
          else side.push(...templateIds(part, item))
        }
        break
      }
      case 'RobertaProcessing':
      case 'BertProcessing':
        around.before.unshift(pairId(part, 'cls'))
        around.after.push(pairId(part, 'sep'))
        break
      default:
        throw unknownType(part, 'ByteLevel, TemplateProcessing, RobertaProcessing, BertProcessing or Sequence')
    }
  }
  return around
}

function templateIds(template: Fields, item: Fields): number[] {
  const name = item.object('SpecialToken')?.text('id')
  const ids = name === undefined ? undefined : template.object('special_tokens')?.object(name)?.tokenIds('ids')
  if (ids === undefined) throw template.error('single', 'special tokens that special_tokens has ids for')
  return ids
}

/** A token written as [text, id]. */
function pairId(part: Fields, key: string): number {
  const pair = part.raw(key)
  const id: unknown = Array.isArray(pair) ? pair[1] : undefined
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id <= MAX_ID) return id
  throw part.error(key, 'a token and its id')
}

function readDecoder(json: Fields): Decoding {
  const steps = sequence(json.object('decoder'), 'decoders')
  const known = 'ByteLevel, Metaspace or a Sequence of Replace, ByteFallback, Fuse and Strip'
  if (steps.length === 0) throw json.error('decoder', known)
  const decoding: Decoding & { type: 'Pieces' } = { type: 'Pieces', replace: [], byte_fallback: false, start: 'keep' }
  for (const step of steps) {
    switch (step.text('type')) {
      case 'ByteLevel':
        if (steps.length > 1) throw step.error('type', 'no other decoder beside it')
        return { type: 'ByteLevel' }
      case 'Metaspace':
        decoding.replace.push({ text: readReplacement(step), content: ' ' })
        if (readPrepend(step) !== 'never') decoding.start = 'strip first token'
        break
      case 'Replace': {
        const pattern = readPattern(step)
        if ('regex' in pattern) throw step.error('pattern', 'a String (a Regex is not built yet)')
        decoding.replace.push({ text: pattern.text, content: step.text('content') ?? '' })
        break
      }
      case 'ByteFallback':
        decoding.byte_fallback = true
        break
      case 'Fuse':
        break
      case 'Strip':
        if (step.text('content') !== ' ' || step.int('start', 0, 1) > 1 || step.int('stop', 0, 0) > 0)
          throw step.error('content', 'one space at the start (others are not built yet)')
        if (step.int('start', 0, 1) === 1) decoding.start = 'strip one space'
        break
      default:
        throw unknownType(step, known)
    }
  }
  return decoding
}

function requiredText(part: Fields, key: string): string {
  const text = part.text(key)
  if (text === undefined) throw part.error(key, 'a string')
  return text
}
