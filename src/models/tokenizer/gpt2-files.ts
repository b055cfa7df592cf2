// vocab.json and merges.txt, as GPT-2 and OPT have them (OpenAI's own names are encoder.json and vocab.bpe).

import type { Fields } from '../fields.js'
import { describe, ModelError } from '../model-error.js'
import type { AddedToken, TokenizerDefinition } from './definition.js'
import { readMerges } from './merges.js'
import { MAX_ID } from './tokenizer-json.js'

/** Tokens of these vocabularies that are no text, where no file says which are. */
const SPECIAL = ['<|endoftext|>', '<s>', '</s>', '<pad>', '<unk>', '<mask>']

/**
 * @param mergesFile for messages
 * @param guess no file says which tokens are special
 */
export function readByteLevelFiles(
  vocab: Fields,
  mergesFile: string,
  mergesText: string,
  guess: boolean,
): TokenizerDefinition {
  const ids = new Map(vocab.keys().map((token) => [token, vocab.int(token, 0, MAX_ID)]))
  const added = (guess ? SPECIAL : []).flatMap((content): AddedToken[] => {
    const id = ids.get(content)
    if (id === undefined) return []
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }]
  })
  // GPT-2 begins and ends a document with the same token.
  const end = guess ? ((added.find(({ content }) => content === '</s>') ?? added[0])?.content ?? null) : null
  return {
    added,
    normalizer: [],
    preTokenizer: [{ type: 'ByteLevel', add_prefix_space: false, use_regex: true }],
    model: {
      type: 'BPE',
      vocab: ids,
      merges: readMerges(mergesFile, ids, readPairs(mergesFile, mergesText)),
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
    },
    decoding: { type: 'ByteLevel' },
    idsBefore: [],
    idsAfter: [],
    bosToken: end,
    eosToken: end,
  }
}

/** One pair a line; the first line may be a version. */
function readPairs(file: string, text: string): [string, string][] {
  const pairs: [string, string][] = []
  text.split(/\r?\n/).forEach((line, index) => {
    if (line === '' || (index === 0 && line.startsWith('#version'))) return
    const [left, right, more] = line.split(' ')
    if (!left || !right || more !== undefined)
      throw new ModelError(`${file}: line ${index + 1}: expected two tokens, found ${describe(line)}`)
    pairs.push([left, right])
  })
  return pairs
}
