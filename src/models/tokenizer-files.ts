// tokenizer.json, tokenizer_config.json and special_tokens_map.json, read and checked: everything that the encoder does not know how
// to do is refused here by name, instead of giving ids that are almost right.

import { join } from 'node:path'
import type { Fields } from './fields.js'
import { readJson, requireJson } from './folder.js'
import { describe, ModelError } from './model-error.js'

const MAX_ID = 4194303

/** A token matched in the text before merging, in tokenizer.json's own spelling. */
export interface AddedToken {
  id: number
  content: string
  lstrip: boolean
  rstrip: boolean
  normalized: boolean
  special: boolean
}

export interface TokenizerFiles {
  /** tokenizer.json as parsed. */
  json: Record<'normalizer' | 'pre_tokenizer' | 'decoder' | 'model', unknown>
  vocab: [token: string, id: number][]
  /** Added tokens that are found in all text, such as runs of spaces. */
  plainAddedTokens: AddedToken[]
  /** Added tokens that mark structure rather than text. */
  specialTokens: AddedToken[]
  /** Ids that go before and after a text when special tokens are added. */
  idsBefore: number[]
  idsAfter: number[]
  addPrefixSpace: boolean
  bosToken: string | null
  eosToken: string | null
  bosTokenId: number | null
}

/** Reads a folder's tokenizer. */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const json = await requireJson(
    join(folder, 'tokenizer.json'),
    'a tokenizer (vocab.json with merges.txt is not built yet)',
  )
  const config = await readJson(join(folder, 'tokenizer_config.json'))
  const map = await readJson(join(folder, 'special_tokens_map.json'))
  const vocab = readModel(json)
  const addPrefixSpace = readPreTokenizer(json, config)
  checkType(json, 'normalizer', ['NFC'], true)
  checkType(json, 'decoder', ['ByteLevel'], false)
  const added = readAddedTokens(json, config)

  const ids = new Map(vocab)
  for (const { content, id } of added) ids.set(content, id)
  const bosToken = tokenName(config, 'bos_token') ?? tokenName(map, 'bos_token')
  const eosToken = tokenName(config, 'eos_token') ?? tokenName(map, 'eos_token')
  const around = readPostProcessor(json)
  return {
    json: {
      normalizer: json.raw('normalizer') ?? null,
      pre_tokenizer: json.raw('pre_tokenizer') ?? null,
      decoder: json.raw('decoder') ?? null,
      model: json.raw('model'),
    },
    vocab,
    plainAddedTokens: added.filter(({ special }) => !special),
    specialTokens: added.filter(({ special }) => special),
    idsBefore: override(config, 'add_bos_token', bosToken, ids) ?? around.before,
    idsAfter: override(config, 'add_eos_token', eosToken, ids) ?? around.after,
    addPrefixSpace,
    bosToken,
    eosToken,
    bosTokenId: bosToken === null ? null : (ids.get(bosToken) ?? null),
  }
}

/** The vocabulary of a BPE model. */
function readModel(json: Fields): [string, number][] {
  const model = json.object('model')
  if (model === undefined) throw json.error('model', 'an object')
  if (model.text('type') !== 'BPE') throw model.error('type', '"BPE" (other kinds of tokenizer are not built yet)')
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix']) {
    if (model.text(key)) throw model.error(key, 'none (not built yet)')
  }
  if (model.flag('byte_fallback', false)) throw model.error('byte_fallback', 'false (not built yet)')
  if (model.real('dropout', 0, 1, 0) > 0) throw model.error('dropout', 'none')

  const vocab = model.object('vocab')
  if (vocab === undefined) throw model.error('vocab', 'an object of tokens and ids')
  const entries = vocab.keys().map((token): [string, number] => [token, vocab.int(token, 0, MAX_ID)])
  checkMerges(model, new Set(vocab.keys()))
  return entries
}

/** A merge whose result has no id would lose text without a word. */
function checkMerges(model: Fields, vocab: Set<string>): void {
  const merges = model.raw('merges')
  if (!Array.isArray(merges)) throw model.error('merges', 'a list of pairs')
  merges.forEach((merge: unknown, index) => {
    const pair: unknown = typeof merge === 'string' ? merge.split(' ') : merge
    const joined = Array.isArray(pair) && pair.length === 2 ? pair.join('') : null
    if (joined !== null && vocab.has(joined)) return
    throw new ModelError(
      `${model.file}: model.merges[${index}]: expected two tokens that join to a third, found ${describe(merge)}`,
    )
  })
}

function readPreTokenizer(json: Fields, config: Fields | null): boolean {
  const preTokenizer = checkType(json, 'pre_tokenizer', ['ByteLevel'], false)
  if (preTokenizer?.flag('use_regex', true) === false) throw preTokenizer.error('use_regex', 'true (not built yet)')
  const stored = preTokenizer?.flag('add_prefix_space', true) ?? false
  return config?.flag('add_prefix_space', stored) ?? stored
}

/** Those of tokenizer.json, and those that only tokenizer_config.json has. */
function readAddedTokens(json: Fields, config: Fields | null): AddedToken[] {
  const tokens = json.objects('added_tokens').map((token) => readAddedToken(token, token.int('id', 0, MAX_ID)))
  const known = new Set(tokens.map(({ id }) => id))
  const more = config?.object('added_tokens_decoder')
  for (const key of more?.keys() ?? []) {
    const token = more?.object(key)
    if (token === undefined || known.has(Number(key))) continue
    if (!/^\d{1,7}$/.test(key) || Number(key) > MAX_ID) throw more?.error(key, 'a token id as the key')
    tokens.push(readAddedToken(token, Number(key)))
  }
  return tokens
}

function readAddedToken(token: Fields, id: number): AddedToken {
  const content = token.text('content')
  if (!content) throw token.error('content', 'the text of the token')
  if (token.flag('single_word', false)) throw token.error('single_word', 'false (not built yet)')
  const special = token.flag('special', false)
  return {
    id,
    content,
    special,
    lstrip: token.flag('lstrip', false),
    rstrip: token.flag('rstrip', false),
    normalized: token.flag('normalized', !special),
  }
}

/** What goes around a text: only templates add anything. */
function readPostProcessor(json: Fields): { before: number[]; after: number[] } {
  const processor = checkType(json, 'post_processor', ['ByteLevel', 'TemplateProcessing', 'Sequence'], true)
  const processors = processor?.text('type') === 'Sequence' ? processor.objects('processors') : [processor]
  const around = { before: [] as number[], after: [] as number[] }
  for (const part of processors) {
    const type = part?.text('type')
    if (part === undefined || type === 'ByteLevel') continue
    if (type !== 'TemplateProcessing')
      throw part.error('type', 'ByteLevel or TemplateProcessing (others are not built yet)')
    let side = around.before
    for (const item of part.objects('single')) {
      if (item.has('Sequence')) side = around.after
      else side.push(...templateIds(part, item))
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

/** add_bos_token and add_eos_token of tokenizer_config.json win over the post-processor; null when they are not set. */
function override(config: Fields | null, key: string, token: string | null, ids: Map<string, number>): number[] | null {
  if (!config?.has(key)) return null
  if (!config.flag(key, false)) return []
  const id = token === null ? undefined : ids.get(token)
  if (id === undefined) throw config.error(key, 'false, because the tokenizer has no such token')
  return [id]
}

/** A part of tokenizer.json that must be one of some types. */
function checkType(json: Fields, key: string, types: string[], optional: boolean): Fields | undefined {
  const part = json.object(key)
  if (part === undefined && optional) return undefined
  const type = part?.text('type')
  if (type !== undefined && types.includes(type)) return part
  const expected = `${types.join(' or ')}${optional ? ' or none' : ''} (other kinds of tokenizer are not built yet)`
  throw part === undefined ? json.error(key, expected) : part.error('type', expected)
}

/** The name of a token, stored as a string or as an object with its content. */
function tokenName(fields: Fields | null, key: string): string | null {
  const value = fields?.raw(key)
  if (value === undefined) return null
  if (typeof value === 'string') return value
  return fields?.object(key)?.text('content') ?? null
}
