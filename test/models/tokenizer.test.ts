import { cpSync, existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { loadTokenizer } from '../../src/models/tokenizer.js'
import { copyOf, editJson, emptyFolder, fixture, type Json } from './scratch.js'

const END = '<|endoftext|>'
const goldens = JSON.parse(readFileSync(new URL('goldens/tokenizer.json', import.meta.url), 'utf8'))
const texts: string[] = goldens.texts
const neox = fileURLToPath(new URL('../../../shared/data/tokenizers/gpt-neox-20b/20B_tokenizer.json', import.meta.url))

describe('ids are those of Hugging Face', () => {
  test('for the tiny tokenizer', async () => {
    const tokenizer = await loadTokenizer(fixture('neox-parallel'))
    for (const [index, text] of texts.entries()) {
      expect(tokenizer.encode(text, { allowSpecial: true }), JSON.stringify(text)).toEqual(
        goldens.fixture.special[index],
      )
      expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(goldens.fixture.plain[index])
    }
  })

  test.skipIf(!existsSync(neox))(
    'for GPT-NeoX-20B (skipped where ../shared/data is not beside the repository)',
    async () => {
      const folder = emptyFolder()
      cpSync(neox, join(folder, 'tokenizer.json'))
      const tokenizer = await loadTokenizer(folder)
      expect(tokenizer.size).toBe(50277)
      for (const [index, text] of texts.entries()) {
        expect(tokenizer.encode(text, { allowSpecial: true }), JSON.stringify(text)).toEqual(
          goldens['gpt-neox-20b'].special[index],
        )
        expect(tokenizer.encode(text), JSON.stringify(text)).toEqual(goldens['gpt-neox-20b'].plain[index])
      }
    },
  )
})

describe('bytes', () => {
  test('the bytes of all tokens of a text are the text in NFC, with special tokens in it or not', async () => {
    const { encode, tokenBytes } = await loadTokenizer(fixture('neox-parallel'))
    for (const text of texts) {
      for (const allowSpecial of [true, false]) {
        expect(Buffer.concat(encode(text, { allowSpecial }).map(tokenBytes)).toString()).toBe(text.normalize('NFC'))
      }
    }
  })

  test('every byte has a token, and ids without a token have no bytes', async () => {
    const tokenizer = await loadTokenizer(fixture('neox-parallel'))
    const all = Array.from({ length: tokenizer.size }, (_, id) => tokenizer.tokenBytes(id))
    const single = new Set(all.filter((bytes) => bytes.length === 1).map((bytes) => bytes[0]))
    expect(single.size).toBe(256)
    for (const id of [-1, tokenizer.size, 1e9]) expect(tokenizer.tokenBytes(id)).toHaveLength(0)
  })

  test('a token with a character outside the byte table is text as it is', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'tokenizer.json', (json) => {
      ;((json.model as Json).vocab as Json)['→ x'] = 310
    })
    const tokenizer = await loadTokenizer(folder)
    expect(Buffer.from(tokenizer.tokenBytes(310)).toString()).toBe('→ x')
    expect(tokenizer.tokenBytes(305)).toHaveLength(0)
    expect(tokenizer.size).toBe(311)
  })
})

describe('special tokens', () => {
  test('stay text in a user’s words unless they are allowed', async () => {
    const tokenizer = await loadTokenizer(fixture('neox-parallel'))
    expect(tokenizer.encode(END, { allowSpecial: true })).toEqual([0])
    expect(tokenizer.encode(END)).not.toContain(0)
    expect(tokenizer.encode(`a${END}b`)).not.toContain(0)
    expect([0, 1, 2, 299, 300].map(tokenizer.isSpecial)).toEqual([true, true, false, false, false])
  })

  test('are named by tokenizer_config.json, as strings or as objects, else by special_tokens_map.json', async () => {
    const folder = copyOf('neox-parallel')
    expect(await loadTokenizer(folder)).toMatchObject({ bosToken: END, eosToken: END, bosTokenId: 0 })
    editJson(folder, 'tokenizer_config.json', (json) => {
      json.bos_token = { content: '<|padding|>' }
      json.eos_token = null
    })
    expect(await loadTokenizer(folder)).toMatchObject({ bosToken: '<|padding|>', eosToken: null, bosTokenId: 1 })
  })

  test('go around a text as the template says, and as add_bos_token says instead', async () => {
    const folder = copyOf('neox-parallel')
    const plain = (await loadTokenizer(folder)).encode('the king')
    editJson(folder, 'tokenizer.json', (json) => {
      const template = {
        type: 'TemplateProcessing',
        single: [
          { SpecialToken: { id: END, type_id: 0 } },
          { Sequence: { id: 'A', type_id: 0 } },
          { SpecialToken: { id: 'pad', type_id: 0 } },
        ],
        special_tokens: {
          [END]: { id: END, ids: [0], tokens: [END] },
          pad: { id: 'pad', ids: [1, 1], tokens: ['x', 'y'] },
        },
      }
      json.post_processor = { type: 'Sequence', processors: [{ type: 'ByteLevel' }, template] }
    })
    const templated = await loadTokenizer(folder)
    expect(templated.encode('the king')).toEqual([0, ...plain, 1, 1])
    expect(templated.encode('the king', { addSpecialTokens: false })).toEqual(plain)
    editJson(folder, 'tokenizer_config.json', (json) => {
      json.add_bos_token = false
      json.add_eos_token = true
    })
    expect((await loadTokenizer(folder)).encode('the king')).toEqual([...plain, 0])
    // What transformers' generic class does not heed counts for nothing.
    editJson(folder, 'tokenizer_config.json', (json) => {
      json.tokenizer_class = 'PreTrainedTokenizerFast'
    })
    expect((await loadTokenizer(folder)).encode('the king')).toEqual([0, ...plain, 1, 1])
    editJson(folder, 'tokenizer_config.json', (json) => {
      json.tokenizer_class = 'LlamaTokenizerFast'
    })
    expect((await loadTokenizer(folder)).encode('the king')).toEqual([...plain, 0])
  })

  test('take the white space beside them when they say so, and the longer of two names wins', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'tokenizer_config.json', (json) => {
      json.added_tokens_decoder = {
        0: { content: 'ignored: tokenizer.json has this id' },
        300: { content: '<|end', special: true, lstrip: true, rstrip: true },
        301: { content: 'king', special: false },
      }
    })
    const tokenizer = await loadTokenizer(folder)
    expect(tokenizer.encode(`a \n<|end b${END}`, { allowSpecial: true })).toEqual([
      ...tokenizer.encode('a'),
      300,
      ...tokenizer.encode('b'),
      0,
    ])
    expect(tokenizer.encode('king')).toEqual([301])
    expect(tokenizer.size).toBe(302)
  })
})

test('add_prefix_space of tokenizer_config.json is honoured', async () => {
  const folder = copyOf('neox-parallel')
  const spaced = (await loadTokenizer(folder)).encode(' the')
  editJson(folder, 'tokenizer_config.json', (json) => {
    json.add_prefix_space = true
  })
  expect((await loadTokenizer(folder)).encode('the')).toEqual(spaced)
})

test("Galactica's marker makes a token of each character of a sequence, as it does with Hugging Face's tokenizers", async () => {
  const tokenizer = await loadTokenizer(fileURLToPath(new URL('../fixtures/tokenizers/galactica', import.meta.url)))
  const marked = (text: string) => [...text, ''].map((character) => `SPL1T-TH1S-Pl3A5E${character}`).join('')
  const ids = (text: string) => tokenizer.encode(text)
  const [before, after] = [ids('[START_SMILES]'), ids('[END_SMILES]')]
  expect(ids(`[START_SMILES]${marked('Cthe(O)O')}[END_SMILES]`).join()).toBe(
    [...before, 38, 87, 75, 72, 11, 50, 12, 50, ...after].join(), // tokenizers 0.23
  )
  expect(ids('the')).toEqual([268])
})
