// What a tokenizer is, whichever file it came from: tokenizer.json's parts with its names, checked and flattened.

/** A token matched in the text before the model sees it, in tokenizer.json's own spelling. */
export interface AddedToken {
  id: number
  content: string
  /** matched only where no letter or digit touches it */
  single_word: boolean
  /** takes the white space before it */
  lstrip: boolean
  /** takes the white space after it */
  rstrip: boolean
  /** matched in the normalized text, and normalized itself */
  normalized: boolean
  /** marks structure rather than text */
  special: boolean
}

/** What a Replace or Split looks for: text as it is, or a regular expression in Oniguruma's syntax. */
export type Pattern = { text: string } | { regex: string }

export type NormalizerStep =
  | { type: 'NFC' | 'NFD' | 'NFKC' | 'NFKD' | 'Lowercase' | 'ByteLevel' }
  | { type: 'Prepend'; text: string }
  | { type: 'Replace'; pattern: Pattern; content: string }
  | { type: 'Strip'; left: boolean; right: boolean }
  /** charsmap: SentencePiece's table, see charsmap.ts */
  | { type: 'Precompiled'; charsmap: Uint8Array }

/** What becomes of the matches of a split. */
export type SplitBehavior = 'Removed' | 'Isolated' | 'MergedWithPrevious' | 'MergedWithNext' | 'Contiguous'

export type PreTokenizerStep =
  | { type: 'ByteLevel'; add_prefix_space: boolean; use_regex: boolean }
  | { type: 'Metaspace'; replacement: string; prepend_scheme: 'always' | 'first' | 'never'; split: boolean }
  | { type: 'Split'; pattern: Pattern; behavior: SplitBehavior; invert: boolean }
  | { type: 'Digits'; individual_digits: boolean }
  | { type: 'Punctuation'; behavior: SplitBehavior }
  | { type: 'Whitespace' | 'WhitespaceSplit' }

/** How tokens become text. */
export type Decoding =
  /** the characters of tokens stand for bytes (GPT-2's table) */
  | { type: 'ByteLevel' }
  | {
      type: 'Pieces'
      /** in each token, in order */
      replace: { text: string; content: string }[]
      /** a token such as <0x0A> is that byte */
      byte_fallback: boolean
      /** what is taken from the start of a text: nothing, its first space, or all spaces of its first token */
      start: 'keep' | 'strip one space' | 'strip first token'
    }

/** Four numbers a merge: ids of the left and the right token, rank (the less, the sooner), id of the token that they join to. */
export type Merges = Int32Array

export interface BpeModel {
  type: 'BPE'
  vocab: Map<string, number>
  merges: Merges
  unk_token: string | null
  fuse_unk: boolean
  /** a character without a token becomes the tokens of its bytes */
  byte_fallback: boolean
  /** a word that is a token is not merged */
  ignore_merges: boolean
}

export interface UnigramModel {
  type: 'Unigram'
  /** by id */
  vocab: [piece: string, score: number][]
  unk_id: number | null
  byte_fallback: boolean
}

export interface TokenizerDefinition {
  added: AddedToken[]
  normalizer: NormalizerStep[]
  preTokenizer: PreTokenizerStep[]
  model: BpeModel | UnigramModel
  decoding: Decoding
  /** Ids that go before and after a text when special tokens are added. */
  idsBefore: number[]
  idsAfter: number[]
  bosToken: string | null
  eosToken: string | null
}
