// tokenizer.model and spiece.model: SentencePiece's own files, turned into what Hugging Face turns them into.

import type { Fields } from '../fields.js'
import { ModelError } from '../model-error.js'
import { isCharsmap } from './charsmap.js'
import type { AddedToken, BpeModel, Decoding, NormalizerStep, TokenizerDefinition, UnigramModel } from './definition.js'
import { mergesOf } from './merges.js'
import { readProtobuf } from './protobuf.js'

const MARK = '▁'

/** SentencePiece's kinds of pieces; the others are plain text. */
const UNKNOWN = 2
const CONTROL = 3
const USER_DEFINED = 4
const BYTE = 6

const UNIGRAM = 1
const BPE = 2

interface Piece {
  text: string
  score: number
  type: number
}

/** As much of a model file as matters here, with SentencePiece's defaults. */
interface ModelFile {
  pieces: Piece[]
  modelType: number
  byteFallback: boolean
  unkId: number
  bosId: number
  eosId: number
  charsmap: Uint8Array
  addDummyPrefix: boolean
}

/**
 * @param config tokenizer_config.json
 * @param modelConfig config.json, which tells T5 from its relatives
 */
export function readSentencePiece(
  file: string,
  bytes: Uint8Array,
  config: Fields | null,
  modelConfig: Fields | null,
): TokenizerDefinition {
  const model = readModelFile(file, bytes)
  if (model.pieces.length === 0) throw new ModelError(`${file}: expected pieces, found none`)
  if (model.charsmap.length > 0 && !isCharsmap(model.charsmap))
    throw new ModelError(`${file}: expected a precompiled_charsmap, found ${model.charsmap.length} bytes that are none`)
  const family = modelConfig?.text('model_type') ?? ''
  if (model.modelType === UNIGRAM) return readUnigramFile(model, config, family)
  if (model.modelType === BPE) return readBpeFile(model, config)
  throw new ModelError(
    `${file}: expected a model of type unigram or bpe, found type ${model.modelType} (others are not built yet)`,
  )
}

/** Spaces in a row are one, which T5's converter leaves to the split at white space. */
const oneSpace: NormalizerStep[] = [
  { type: 'Strip', left: false, right: true },
  { type: 'Replace', pattern: { regex: ' {2,}' }, content: MARK },
]

function readUnigramFile(model: ModelFile, config: Fields | null, family: string): TokenizerDefinition {
  const isT5 = /^T5Tokenizer/.test(config?.text('tokenizer_class') ?? '') || /^u?m?t5$/.test(family)
  // T5's sentinels are not in its file; mT5's are.
  const usual = isT5 && /^(?:t5)?$/.test(family) ? 100 : 0
  const numExtra = config?.int('extra_ids', 0, 10000, usual) ?? usual
  const vocab = model.pieces.map(({ text, score }): [string, number] => [text, score])
  const extra: AddedToken[] = []
  for (let i = numExtra - 1; i >= 0; i--) {
    const content = `<extra_id_${i}>`
    extra.push(added(vocab.length, content, true))
    vocab.push([content, 0])
  }
  const unigram: UnigramModel = {
    type: 'Unigram',
    vocab,
    unk_id: model.unkId < 0 ? null : model.unkId,
    byte_fallback: model.byteFallback,
  }
  return {
    added: [...addedPieces(model), ...extra],
    normalizer: [...charsmapOf(model), ...(isT5 ? [] : oneSpace)],
    preTokenizer: [
      ...(isT5 ? [{ type: 'WhitespaceSplit' } as const] : []),
      { type: 'Metaspace', replacement: MARK, prepend_scheme: model.addDummyPrefix ? 'always' : 'never', split: true },
    ],
    model: unigram,
    decoding: {
      type: 'Pieces',
      replace: [{ text: MARK, content: ' ' }],
      byte_fallback: model.byteFallback,
      start: model.addDummyPrefix ? 'strip first token' : 'keep',
    },
    idsBefore: [],
    idsAfter: isT5 && model.eosId >= 0 ? [model.eosId] : [],
    ...ends(model),
  }
}

function readBpeFile(model: ModelFile, config: Fields | null): TokenizerDefinition {
  const vocab = new Map(model.pieces.map(({ text }, id) => [text, id]))
  // Control tokens and bytes are never written out, so no merge may lead to them.
  const unwritten = new Set(
    model.pieces.flatMap(({ type }, id) => ([UNKNOWN, CONTROL, BYTE].includes(type) ? [id] : [])),
  )
  const bpe: BpeModel = {
    type: 'BPE',
    vocab,
    merges: mergesOf(vocab, unwritten),
    unk_token: model.pieces[model.unkId]?.text ?? null,
    fuse_unk: true,
    byte_fallback: model.byteFallback,
    ignore_merges: false,
  }
  const prefix = model.addDummyPrefix && (config?.flag('add_prefix_space', true) ?? true)
  // Llama's first converter put the space before every piece of text between special tokens; the present one only at the start.
  const legacy = prefix && (config?.flag('legacy', false) ?? false)
  const toMark: NormalizerStep = { type: 'Replace', pattern: { text: ' ' }, content: MARK }
  const decoding: Decoding = {
    type: 'Pieces',
    replace: [{ text: MARK, content: ' ' }],
    byte_fallback: model.byteFallback,
    start: prefix ? 'strip one space' : 'keep',
  }
  return {
    added: addedPieces(model),
    normalizer: [...charsmapOf(model), ...(legacy ? ([{ type: 'Prepend', text: MARK }, toMark] as const) : [])],
    preTokenizer: legacy
      ? []
      : [{ type: 'Metaspace', replacement: MARK, prepend_scheme: prefix ? 'first' : 'never', split: false }],
    model: bpe,
    decoding,
    idsBefore: model.bosId >= 0 ? [model.bosId] : [],
    idsAfter: [],
    ...ends(model),
  }
}

function charsmapOf({ charsmap }: ModelFile): NormalizerStep[] {
  return charsmap.length === 0 ? [] : [{ type: 'Precompiled', charsmap }]
}

/** Gemma's marks of a turn are structure, though its file calls them symbols like any other. */
const TURNS = ['<start_of_turn>', '<end_of_turn>']

function addedPieces({ pieces }: ModelFile): AddedToken[] {
  return pieces.flatMap(({ text, type }, id) => {
    if (type === CONTROL || type === UNKNOWN) return [added(id, text, true)]
    return type === USER_DEFINED ? [added(id, text, TURNS.includes(text))] : []
  })
}

function added(id: number, content: string, special: boolean): AddedToken {
  return { id, content, special, single_word: false, lstrip: false, rstrip: false, normalized: false }
}

function ends({ pieces, bosId, eosId }: ModelFile): { bosToken: string | null; eosToken: string | null } {
  return { bosToken: pieces[bosId]?.text ?? null, eosToken: pieces[eosId]?.text ?? null }
}

/** Fields by their numbers in sentencepiece_model.proto. */
function readModelFile(file: string, bytes: Uint8Array): ModelFile {
  const model: ModelFile = {
    pieces: [],
    modelType: UNIGRAM,
    byteFallback: false,
    unkId: 0,
    bosId: 1,
    eosId: 2,
    charsmap: new Uint8Array(),
    addDummyPrefix: true,
  }
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
  for (const { number, value } of readProtobuf(file, bytes)) {
    if (typeof value === 'number') continue
    if (number === 1) {
      const piece: Piece = { text: '', score: 0, type: 1 }
      for (const field of readProtobuf(file, value)) {
        if (field.number === 1 && typeof field.value !== 'number') piece.text = utf8.decode(field.value)
        if (field.number === 2 && typeof field.value === 'number') piece.score = field.value
        if (field.number === 3 && typeof field.value === 'number') piece.type = field.value
      }
      model.pieces.push(piece)
    } else if (number === 2) {
      for (const field of readProtobuf(file, value)) {
        if (typeof field.value !== 'number') continue
        if (field.number === 3) model.modelType = field.value
        if (field.number === 35) model.byteFallback = field.value !== 0
        if (field.number === 40) model.unkId = field.value
        if (field.number === 41) model.bosId = field.value
        if (field.number === 42) model.eosId = field.value
      }
    } else if (number === 3) {
      for (const field of readProtobuf(file, value)) {
        if (field.number === 2 && typeof field.value !== 'number') model.charsmap = field.value
        if (field.number === 3 && typeof field.value === 'number') model.addDummyPrefix = field.value !== 0
      }
    }
  }
  const idOrNone = (id: number) => (id < model.pieces.length ? id : -1) // -1 is stored as a huge number
  return { ...model, bosId: idOrNone(model.bosId), eosId: idOrNone(model.eosId), unkId: idOrNone(model.unkId) }
}
