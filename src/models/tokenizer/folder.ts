// Which of a folder's files the tokenizer comes from, and what the files beside it say about special tokens.

import { join } from 'node:path'
import type { Fields } from '../fields.js'
import { readBytes, readJson, readText } from '../folder.js'
import { ModelError } from '../model-error.js'
import { idOf } from './compile.js'
import type { AddedToken, PreTokenizerStep, TokenizerDefinition } from './definition.js'
import { readByteLevelFiles } from './gpt2-files.js'
import { readSentencePiece } from './sentencepiece.js'
import { readTiktoken } from './tiktoken.js'
import { tokenName, tokenRoles } from './token-names.js'
import { MAX_ID, readAddedToken, readTokenizerJson } from './tokenizer-json.js'

/**
 * Reads a folder's tokenizer: tokenizer.json, else the files that it would be made from.
 * @throws ModelError
 */
export async function readTokenizer(folder: string): Promise<TokenizerDefinition> {
  const config = await readJson(join(folder, 'tokenizer_config.json'))
  const map = await readJson(join(folder, 'special_tokens_map.json'))
  const names = tokenRoles.flatMap((name) => tokenName(config, name) ?? tokenName(map, name) ?? [])
  const json = await readJson(join(folder, 'tokenizer.json'))
  const definition = json === null ? await readFiles(folder, config, names) : readTokenizerJson(json)
  definition.bosToken = tokenName(config, 'bos_token') ?? tokenName(map, 'bos_token') ?? definition.bosToken
  definition.eosToken = tokenName(config, 'eos_token') ?? tokenName(map, 'eos_token') ?? definition.eosToken
  addTokens(definition, await moreTokens(folder, config))
  markSpecial(definition, names)
  definition.preTokenizer = overridePrefixSpace(definition.preTokenizer, config)
  if (json === null || obeysFlags(config)) {
    definition.idsBefore = override(config, 'add_bos_token', definition, definition.bosToken) ?? definition.idsBefore
    definition.idsAfter = override(config, 'add_eos_token', definition, definition.eosToken) ?? definition.idsAfter
  }
  return definition
}

/** The tokenizer of a folder without tokenizer.json. */
async function readFiles(folder: string, config: Fields | null, names: string[]): Promise<TokenizerDefinition> {
  for (const name of ['tokenizer.model', 'spiece.model', 'sentencepiece.bpe.model', 'sentencepiece.model']) {
    const file = join(folder, name)
    const bytes = await readBytes(file)
    if (bytes !== null) return readSentencePiece(file, bytes, config, await readJson(join(folder, 'config.json')))
  }
  for (const [vocabName, mergesName] of [
    ['vocab.json', 'merges.txt'],
    ['encoder.json', 'vocab.bpe'],
  ] as const) {
    const vocab = await readJson(join(folder, vocabName))
    if (vocab === null) continue
    const file = join(folder, mergesName)
    const merges = await readText(file)
    if (merges === null) throw new ModelError(`${file}: expected the merges of ${vocabName}, found no such file`)
    return readByteLevelFiles(vocab, file, merges, names.length === 0)
  }
  const tiktoken = join(folder, 'qwen.tiktoken')
  const ranks = await readText(tiktoken)
  if (ranks !== null) return readTiktoken(tiktoken, ranks)
  throw new ModelError(
    `${join(folder, 'tokenizer.json')}: expected a tokenizer, found no such file, nor tokenizer.model, spiece.model, vocab.json with merges.txt, or qwen.tiktoken`,
  )
}

/** Added tokens that stand in other files than the tokenizer's own. */
async function moreTokens(folder: string, config: Fields | null): Promise<AddedToken[]> {
  const tokens: AddedToken[] = []
  const decoder = config?.object('added_tokens_decoder')
  for (const key of decoder?.keys() ?? []) {
    const token = decoder?.object(key)
    if (token === undefined) continue
    if (!/^\d{1,7}$/.test(key) || Number(key) > MAX_ID) throw decoder?.error(key, 'a token id as the key')
    tokens.push(readAddedToken(token, Number(key)))
  }
  const added = await readJson(join(folder, 'added_tokens.json'))
  for (const content of added?.keys() ?? []) {
    const id = added?.int(content, 0, MAX_ID) ?? 0
    tokens.push({ id, content, single_word: false, lstrip: false, rstrip: false, normalized: true, special: false })
  }
  return tokens
}

/** Those that the tokenizer does not have yet. */
function addTokens(definition: TokenizerDefinition, tokens: AddedToken[]): void {
  const ids = new Set(definition.added.map(({ id }) => id))
  const contents = new Set(definition.added.map(({ content }) => content))
  for (const token of tokens) {
    if (ids.has(token.id) || contents.has(token.content) || token.content === '') continue
    ids.add(token.id)
    contents.add(token.content)
    definition.added.push(token)
  }
}

/** A token that the configuration gives a role is special, whether or not the tokenizer says so. */
function markSpecial(definition: TokenizerDefinition, names: string[]): void {
  for (const content of new Set(names)) {
    const known = definition.added.find((token) => token.content === content)
    if (known !== undefined) {
      known.special = true
      continue
    }
    const id = idOf(definition, content)
    if (id === null) continue // a name without a token is of no use to anybody
    definition.added.push({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })
  }
}

/** add_prefix_space of tokenizer_config.json wins over the first step of byte-level pre-tokenizers. */
function overridePrefixSpace(steps: PreTokenizerStep[], config: Fields | null): PreTokenizerStep[] {
  if (!config?.has('add_prefix_space')) return steps
  const add_prefix_space = config.flag('add_prefix_space', false)
  return steps.map((step) => (step.type === 'ByteLevel' ? { ...step, add_prefix_space } : step))
}

/**
 * Whether add_bos_token and add_eos_token win over tokenizer.json's post-processor: with the classes of transformers 4 that rebuild it.
 * Others leave them where they are, though many of their configurations say true. (transformers 5 heeds them nowhere.)
 */
function obeysFlags(config: Fields | null): boolean {
  const name = config?.text('tokenizer_class')
  return name === undefined || /^(?:Llama|CodeLlama|Gemma|GPTNeoX|Cohere)Tokenizer(?:Fast)?$/.test(name)
}

/** The ids that add_bos_token or add_eos_token puts around a text; null when it is not set. */
function override(
  config: Fields | null,
  key: string,
  definition: TokenizerDefinition,
  token: string | null,
): number[] | null {
  if (!config?.has(key)) return null
  if (!config.flag(key, false)) return []
  const id = token === null ? null : idOf(definition, token)
  if (id === null) throw config.error(key, 'false, because the tokenizer has no such token')
  return [id]
}
