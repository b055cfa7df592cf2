import { mkdirSync, readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { loadModel, ModelError } from '../../src/models/load.js'
import { copyOf, editHeader, editJson, emptyFolder, fixture, type Json, safetensors } from './scratch.js'

const LFS_POINTER = 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n'
const WEIGHTS = 'model.safetensors'
const EMBEDDING = 'gpt_neox.embed_in.weight'

interface Entry {
  dtype: string
  shape: number[]
  data_offsets: [number, number]
}

describe('a model', () => {
  test('is everything that the engine and the text side need', async () => {
    const model = await loadModel(fixture('neox-parallel'))
    expect(model).toMatchObject({
      name: 'neox-parallel',
      folder: fixture('neox-parallel'),
      architecture: 'GPTNeoXForCausalLM',
      checkpointDtype: 'float32',
      files: [join(fixture('neox-parallel'), WEIGHTS)],
      stopTokenIds: [0, 1],
      generationDefaults: { temperature: 0.8, top_p: 0.9 },
      warnings: [],
    })
    expect(model.spec).toMatchObject({
      vocab_size: 300,
      num_sampled_ids: 300,
      num_layers: 2,
      rope_frequencies: Float32Array.of(1, Math.fround(0.01)),
      topology: 'parallel',
    })
    expect(model.chatTemplate).toContain('add_generation_prompt')
    expect(model.created).toBe(Math.floor(statSync(model.files[0] as string).mtimeMs / 1000))
    expect(model.tensors).toHaveLength(4 + 2 * 16)
  })

  test('has sources that cover every stored byte exactly once', async () => {
    for (const name of ['neox-parallel', 'neox-sequential', 'neox-bf16']) {
      const { tensors, files } = await loadModel(fixture(name))
      const seen = files.map((file) => new Uint8Array(statSync(file).size))
      for (const source of tensors) {
        const counts = seen[source.file] as Uint8Array
        const rowBytes = source.cols * (source.dtype === 'float32' ? 4 : 2)
        for (let row = 0; row < source.group_rows * source.num_groups; row++) {
          const stored =
            source.first_row + Math.floor(row / source.group_rows) * source.group_stride + (row % source.group_rows)
          const start = source.offset + stored * rowBytes
          for (let at = start; at < start + rowBytes; at++) counts[at] = (counts[at] ?? 0) + 1
        }
      }
      for (const [index, counts] of seen.entries()) {
        const header = 8 + Number(readFileSync(files[index] as string).readBigUInt64LE())
        expect(counts.subarray(0, header).every((count) => count === 0)).toBe(true)
        expect(counts.subarray(header).every((count) => count === 1)).toBe(true)
      }
    }
  })

  test('in several files is read through its index', async () => {
    const model = await loadModel(fixture('neox-sequential'))
    expect(model.files.map((file) => basename(file)).toSorted()).toEqual([
      'model-00001-of-00003.safetensors',
      'model-00002-of-00003.safetensors',
      'model-00003-of-00003.safetensors',
    ])
  })

  test('with more rows than the tokenizer has ids samples only those ids', async () => {
    const { spec } = await loadModel(fixture('neox-no-attention-bias'))
    expect(spec).toMatchObject({ vocab_size: 331, num_sampled_ids: 300 })
  })

  test('with fewer rows than the tokenizer has ids samples only its rows, and says so', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'tokenizer_config.json', (config) => {
      config.added_tokens_decoder = { 300: { content: '<|extra|>', special: true } }
    })
    const { spec, warnings } = await loadModel(folder)
    expect(spec.num_sampled_ids).toBe(300)
    expect(warnings).toEqual([`${join(folder, 'config.json')}: vocab_size is 300, but the tokenizer has ids up to 300`])
  })

  test('without attention biases has no sources for them', async () => {
    const { tensors } = await loadModel(fixture('neox-no-attention-bias'))
    const biases = tensors.filter(({ role }) => /^(query|key|value|attention_out)_bias$/.test(role))
    expect(biases).toEqual([])
  })

  test('may lack the prefix of the base model and store old buffers', async () => {
    const folder = copyOf('neox-parallel')
    editHeader(folder, (header) => {
      for (const name of Object.keys(header)) {
        header[name.replace(/^gpt_neox\./, '')] = header[name]
        if (name.startsWith('gpt_neox.')) delete header[name]
      }
      const empty = { dtype: 'BOOL', shape: [0], data_offsets: [0, 0] }
      header['layers.0.attention.bias'] = empty
      header['layers.1.attention.rotary_emb.inv_freq'] = empty
    })
    const model = await loadModel(folder)
    expect(model.warnings).toEqual([])
    expect(model.tensors).toHaveLength(4 + 2 * 16)
  })

  test('warns about tensors that nothing reads', async () => {
    const folder = copyOf('neox-parallel')
    editHeader(folder, (header) => {
      header['gpt_neox.layers.0.extra'] = { dtype: 'F32', shape: [0], data_offsets: [0, 0] }
    })
    expect((await loadModel(folder)).warnings).toEqual([
      `${join(folder, WEIGHTS)}: ignored tensors that the model has no use for: gpt_neox.layers.0.extra`,
    ])
  })
})

describe('the unembedding', () => {
  test('is the embedding when the config ties them', async () => {
    const { spec, tensors, warnings } = await loadModel(fixture('neox-tied'))
    expect(spec.tie_word_embeddings).toBe(true)
    expect(tensors.some(({ role }) => role === 'unembedding')).toBe(false)
    expect(warnings).toEqual([])
  })

  test('must be stored when the config does not tie them', async () => {
    const folder = copyOf('neox-tied')
    editJson(folder, 'config.json', (config) => {
      config.tie_word_embeddings = false
    })
    expect(await failure(folder)).toContain('expected tensors that are not in it: embed_out.weight; found')
  })

  test('is the embedding, with a warning, when a tied config has a different one', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'config.json', (config) => {
      config.tie_word_embeddings = true
    })
    const { spec, tensors, warnings } = await loadModel(folder)
    expect(spec.tie_word_embeddings).toBe(true)
    expect(tensors.some(({ role }) => role === 'unembedding')).toBe(false)
    expect(warnings).toEqual([
      `${join(folder, WEIGHTS)}: embed_out.weight differs from the embedding and is ignored, because the config ties them`,
    ])
  })

  test('is the embedding without a word when a tied config has the same one twice', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'config.json', (config) => {
      config.tie_word_embeddings = true
    })
    const file = join(folder, WEIGHTS)
    const bytes = readFileSync(file)
    const data = 8 + Number(bytes.readBigUInt64LE())
    const header = JSON.parse(bytes.toString('utf8', 8, data))
    const [from, to] = [header[EMBEDDING].data_offsets, header['embed_out.weight'].data_offsets]
    bytes.copy(bytes, data + to[0], data + from[0], data + from[1])
    writeFileSync(file, bytes)
    expect(await loadModel(folder)).toMatchObject({ spec: { tie_word_embeddings: true }, warnings: [] })
  })
})

describe('what ends a completion', () => {
  test('is said by generation_config.json, else by config.json, and by the tokenizer', async () => {
    const folder = copyOf('neox-parallel')
    const stops = async () => (await loadModel(folder)).stopTokenIds
    const tokenizerEnd = (eos_token: string | null) =>
      editJson(folder, 'tokenizer_config.json', (config) => Object.assign(config, { eos_token }))
    const configEnd = (eos_token_id: number | number[]) =>
      editJson(folder, 'config.json', (config) => Object.assign(config, { eos_token_id }))
    tokenizerEnd('<|endoftext|>')
    configEnd(7)
    expect(await stops()).toEqual([0, 1])
    editJson(folder, 'generation_config.json', (config) => Object.assign(config, { eos_token_id: 1 }))
    expect(await stops()).toEqual([1, 0])
    rmSync(join(folder, 'generation_config.json'))
    // 7 is no special token: such a config is wrong, as GPT-NeoX-20B's.
    expect(await stops()).toEqual([0])
    configEnd([1, 7])
    expect(await stops()).toEqual([1, 0])
    tokenizerEnd(null)
    expect(await stops()).toEqual([1, 7])
    rmSync(join(folder, 'tokenizer_config.json'))
    editJson(folder, 'config.json', (config) => Object.assign(config, { eos_token_id: null }))
    expect(await loadModel(folder)).toMatchObject({ stopTokenIds: [], generationDefaults: {}, chatTemplate: null })
  })
})

test('generation_config.json gives defaults', async () => {
  const folder = copyOf('neox-parallel')
  const set = (values: Json) => editJson(folder, 'generation_config.json', (json) => void Object.assign(json, values))
  set({ temperature: 0.7, top_p: 0.8, top_k: -1, min_p: 0.05, repetition_penalty: 1.05, max_new_tokens: 2048 })
  expect((await loadModel(folder)).generationDefaults).toEqual({
    temperature: 0.7,
    top_p: 0.8,
    top_k: 0,
    min_p: 0.05,
    repetition_penalty: 1.05,
    max_tokens: 2048,
  })
  set({ repetition_penalty: 0 })
  await expect(loadModel(folder)).rejects.toThrow(/generation_config\.json: repetition_penalty: expected a number/)
})

describe('the chat template', () => {
  test('is found where transformers finds it', async () => {
    const folder = copyOf('neox-parallel')
    const template = async () => (await loadModel(folder)).chatTemplate
    editJson(folder, 'tokenizer_config.json', (config) => {
      delete config.chat_template
    })
    expect(await template()).toBe(null)
    writeFileSync(join(folder, 'chat_template.json'), '{"chat_template": "a processor’s"}')
    expect(await template()).toBe('a processor’s')
    editJson(folder, 'tokenizer_config.json', (config) => {
      config.chat_template = [
        { name: 'tool_use', template: 'tools' },
        { name: 'default', template: 'plain' },
      ]
    })
    expect(await template()).toBe('plain')
    mkdirSync(join(folder, 'additional_chat_templates'))
    writeFileSync(join(folder, 'additional_chat_templates/tool_use.jinja'), 'tools from a file')
    expect(await template()).toBe('plain')
    writeFileSync(join(folder, 'additional_chat_templates/default.jinja'), 'one of several files')
    expect(await template()).toBe('one of several files')
    writeFileSync(join(folder, 'chat_template.jinja'), 'from a file')
    expect(await template()).toBe('from a file')
  })

  test('several without a default are none, with a warning', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'tokenizer_config.json', (config) => {
      config.chat_template = [
        { name: 'rag', template: 'r' },
        { name: 'tool_use', template: 't' },
      ]
    })
    const { chatTemplate, warnings } = await loadModel(folder)
    expect(chatTemplate).toBe(null)
    expect(warnings.join()).toContain('chat_template: expected one named default, found rag, tool_use')
  })

  test('finds the special tokens by their roles', async () => {
    const folder = copyOf('neox-parallel')
    editJson(folder, 'tokenizer_config.json', (config) => {
      Object.assign(config, { bos_token: '<|endoftext|>', pad_token: { content: '<|padding|>' }, unk_token: null })
    })
    writeFileSync(join(folder, 'special_tokens_map.json'), '{"sep_token": "<|padding|>"}')
    expect((await loadModel(folder)).templateTokens).toEqual({
      bos_token: '<|endoftext|>',
      eos_token: '<|endoftext|>',
      pad_token: '<|padding|>',
      sep_token: '<|padding|>',
    })
  })
})

// Each row breaks a copy of a good checkpoint in one way. The message names the file (at its start), what was expected and what was
// found.
interface Break {
  what: string
  from?: string
  change: (folder: string) => void
  file: string
  message: string
}

function config(change: Json): (folder: string) => void {
  return (folder) => editJson(folder, 'config.json', (json) => void Object.assign(json, change))
}

function tokenizer(change: (json: Json & { model: Json }) => void): (folder: string) => void {
  return (folder) => editJson(folder, 'tokenizer.json', (json) => change(json as Json & { model: Json }))
}

function header(change: (header: Record<string, Entry>) => void): (folder: string) => void {
  return (folder) => editHeader(folder, (json) => change(json as unknown as Record<string, Entry>))
}

function without(name: string): (folder: string) => void {
  return (folder) => rmSync(join(folder, name))
}

function text(name: string, content: string): (folder: string) => void {
  return (folder) => writeFileSync(join(folder, name), content)
}

function index(change: (map: Json) => void): (folder: string) => void {
  return (folder) => editJson(folder, 'model.safetensors.index.json', (json) => change(json.weight_map as Json))
}

const breaks: Break[] = [
  {
    what: 'no config.json',
    change: without('config.json'),
    file: 'config.json',
    message: 'expected a Hugging Face model config, found no such file',
  },
  {
    what: 'a config.json that is no JSON',
    change: text('config.json', '{"a": 1'),
    file: 'config.json',
    message: 'expected a JSON object, found text that is not JSON',
  },
  {
    what: 'an HTML page as config.json',
    change: text('config.json', '<!doctype html>\n<html>\n'),
    file: 'config.json',
    message: 'expected a JSON object, found text that is not JSON',
  },
  {
    what: 'a list as config.json',
    change: text('config.json', '[1, 2]'),
    file: 'config.json',
    message: 'expected a JSON object, found [1,2]',
  },
  {
    what: 'a Git LFS pointer as config.json',
    change: text('config.json', LFS_POINTER),
    file: 'config.json',
    message: 'found a Git LFS pointer to it; run "git lfs pull"',
  },
  {
    what: 'a folder as config.json',
    change: (folder) => {
      without('config.json')(folder)
      mkdirSync(join(folder, 'config.json'))
    },
    file: 'config.json',
    message: 'expected a file, found a folder',
  },
  {
    what: 'a wrong type',
    change: config({ hidden_size: 'big' }),
    file: 'config.json',
    message: 'hidden_size: expected an integer from 1 to 131072, found "big"',
  },
  {
    what: 'an unknown architecture',
    change: config({ architectures: ['FooForCausalLM'] }),
    file: 'config.json',
    message: 'found ["FooForCausalLM"]',
  },
  {
    what: 'a quantized checkpoint',
    change: config({ quantization_config: { bits: 4 } }),
    file: 'config.json',
    message: 'quantization_config: expected none (quantized checkpoints are not built yet), found one',
  },
  {
    what: 'a bad eos_token_id',
    change: (folder) => {
      without('generation_config.json')(folder)
      config({ eos_token_id: 'end' })(folder)
    },
    file: 'config.json',
    message: 'eos_token_id: expected a token id or a list of them, found "end"',
  },
  {
    what: 'a bad sampling default',
    change: text('generation_config.json', '{"temperature": -1}'),
    file: 'generation_config.json',
    message: 'temperature: expected a number from 0 to 100, found -1',
  },
  {
    what: 'a generation_config.json that is no JSON',
    change: text('generation_config.json', ''),
    file: 'generation_config.json',
    message: 'expected a JSON object, found text that is not JSON',
  },
  {
    what: 'a chat template that is no text',
    change: text('tokenizer_config.json', '{"chat_template": 5}'),
    file: 'tokenizer_config.json',
    message: 'chat_template: expected a string, found 5',
  },

  {
    what: 'no weights',
    change: without(WEIGHTS),
    file: '',
    message:
      'expected model.safetensors, model.safetensors.index.json, pytorch_model.bin or pytorch_model.bin.index.json; found none of them',
  },
  {
    what: 'only weights of another kind',
    change: (folder) => renameSync(join(folder, WEIGHTS), join(folder, 'model.gguf')),
    file: '',
    message: 'or pytorch_model.bin.index.json; found only model.gguf',
  },
  {
    what: 'a Git LFS pointer as weights',
    change: text(WEIGHTS, LFS_POINTER),
    file: WEIGHTS,
    message: 'expected the file itself, found a Git LFS pointer to it; run "git lfs pull" for model.safetensors',
  },
  {
    what: 'weights cut short',
    change: (folder) => truncateSync(join(folder, WEIGHTS), 100000),
    file: WEIGHTS,
    message: 'found a file of 100000 bytes: is it complete?',
  },
  {
    what: 'weights cut inside the header',
    change: (folder) => truncateSync(join(folder, WEIGHTS), 1000),
    file: WEIGHTS,
    message: 'found a file of 1000 bytes: is it complete?',
  },
  {
    what: 'a header that is too long',
    change: (folder) => writeFileSync(join(folder, WEIGHTS), Buffer.from('ffffffffffffff7f7b7d', 'hex')),
    file: WEIGHTS,
    message: 'expected a safetensors header of at most 100000000 bytes, found a length of 9223372036854775807',
  },
  {
    what: 'overlapping tensors',
    change: header((tensors) => {
      tensors.twice = tensors[EMBEDDING] as Entry
    }),
    file: WEIGHTS,
    message: '(an overlap)',
  },
  {
    what: 'a hole between tensors',
    change: header((tensors) => {
      delete tensors['gpt_neox.final_layer_norm.weight']
    }),
    file: WEIGHTS,
    message: 'where the tensor before it ends',
  },
  {
    what: 'weights of a type that is not built',
    change: header((tensors) => {
      ;(tensors[EMBEDDING] as Entry).dtype = 'I32'
    }),
    file: WEIGHTS,
    message: `tensor "${EMBEDDING}": expected numbers of type F32, F16 or BF16, found I32`,
  },
  {
    what: 'a tensor of a wrong shape',
    change: header((tensors) => {
      ;(tensors[EMBEDDING] as Entry).shape.reverse()
    }),
    file: WEIGHTS,
    message: `tensor "${EMBEDDING}": expected shape [300,32], found [32,300]`,
  },
  {
    what: 'a vector stored as a matrix',
    change: header((tensors) => {
      ;(tensors['gpt_neox.final_layer_norm.weight'] as Entry).shape = [1, 32]
    }),
    file: WEIGHTS,
    message: 'expected shape [32], found [1,32]',
  },
  {
    what: 'a config that asks for another shape',
    change: config({ vocab_size: 299 }),
    file: WEIGHTS,
    message: `tensor "${EMBEDDING}": expected shape [299,32], found [300,32]`,
  },
  {
    what: 'a config that asks for other heads',
    change: config({ intermediate_size: 128 }),
    file: WEIGHTS,
    message: 'expected shape [128,32], found [96,32]',
  },
  {
    what: 'missing tensors',
    change: header((tensors) => {
      for (const name of ['gpt_neox.final_layer_norm.weight', 'gpt_neox.layers.1.attention.query_key_value.bias']) {
        tensors[`x.${name}`] = tensors[name] as Entry
        delete tensors[name]
      }
    }),
    file: WEIGHTS,
    message:
      'expected tensors that are not in it: gpt_neox.final_layer_norm.weight, gpt_neox.layers.1.attention.query_key_value.bias; found 28 tensors',
  },
  {
    what: 'more layers than are stored',
    change: config({ num_hidden_layers: 3 }),
    file: WEIGHTS,
    message: 'expected tensors that are not in it: gpt_neox.layers.2.input_layernorm.weight, ',
  },

  {
    what: 'a missing shard',
    from: 'neox-sequential',
    change: without('model-00002-of-00003.safetensors'),
    file: 'model-00002-of-00003.safetensors',
    message: 'expected a safetensors file, found no such file',
  },
  {
    what: 'an index that leads out of the folder',
    from: 'neox-sequential',
    change: index((map) => {
      map['embed_out.weight'] = '../model.safetensors'
    }),
    file: 'model.safetensors.index.json',
    message: 'weight_map["embed_out.weight"]: expected the name of a file in the folder, found "../model.safetensors"',
  },
  {
    what: 'an index that names the folder above',
    from: 'neox-sequential',
    change: index((map) => {
      map['embed_out.weight'] = '..'
    }),
    file: 'model.safetensors.index.json',
    message: 'expected the name of a file in the folder, found ".."',
  },
  {
    what: 'an index that places a tensor wrongly',
    from: 'neox-sequential',
    change: index((map) => {
      map['embed_out.weight'] = 'model-00002-of-00003.safetensors'
    }),
    file: 'model-00002-of-00003.safetensors',
    message: 'expected tensor "embed_out.weight", which model.safetensors.index.json places here, found no such tensor',
  },
  {
    what: 'an index without a map',
    from: 'neox-sequential',
    change: text('model.safetensors.index.json', '{}'),
    file: 'model.safetensors.index.json',
    message: 'expected a weight_map from tensor names to files, found none',
  },

  {
    what: 'no tokenizer.json',
    change: without('tokenizer.json'),
    file: 'tokenizer.json',
    message: 'expected a tokenizer, found no such file, nor tokenizer.model, spiece.model, vocab.json with merges.txt',
  },
  {
    what: 'another kind of tokenizer',
    change: tokenizer(({ model }) => {
      model.type = 'WordPiece'
    }),
    file: 'tokenizer.json',
    message: 'model.type: expected "BPE" or "Unigram" (other kinds of tokenizer are not built yet), found "WordPiece"',
  },
  {
    what: 'another pre-tokenizer',
    change: tokenizer((json) => {
      json.pre_tokenizer = { type: 'Sequence', pretokenizers: [{ type: 'BertPreTokenizer' }] }
    }),
    file: 'tokenizer.json',
    message:
      'pre_tokenizer.pretokenizers[0].type: expected ByteLevel, Metaspace, Split, Digits, Punctuation, Whitespace',
  },
  {
    what: 'another normalizer',
    change: tokenizer((json) => {
      json.normalizer = { type: 'Nmt' }
    }),
    file: 'tokenizer.json',
    message:
      'normalizer.type: expected NFC, NFD, NFKC, NFKD, Lowercase, ByteLevel, Prepend, Replace, Strip, Precompiled',
  },
  {
    what: 'another post-processor',
    change: tokenizer((json) => {
      json.post_processor = { type: 'RobertaProcessing', cls: ['<s>'] }
    }),
    file: 'tokenizer.json',
    message: 'post_processor.cls: expected a token and its id, found ["<s>"]',
  },
  {
    what: 'a pattern that is not known',
    change: tokenizer((json) => {
      json.pre_tokenizer = { type: 'Split', pattern: { Regex: '\\p{Nothing}' }, behavior: 'Isolated' }
    }),
    file: 'tokenizer.json',
    message:
      'pre_tokenizer.pattern.Regex: expected a regular expression with a property that JavaScript knows instead of',
  },
  {
    what: 'a charsmap that is none',
    change: tokenizer((json) => {
      json.normalizer = { type: 'Precompiled', precompiled_charsmap: 'AAAAAAAA' }
    }),
    file: 'tokenizer.json',
    message: 'normalizer.precompiled_charsmap: expected a trie and its texts in base64, found "AAAAAAAA"',
  },
  {
    what: 'a decoder that is none',
    change: tokenizer((json) => {
      json.decoder = null
    }),
    file: 'tokenizer.json',
    message: 'decoder: expected ByteLevel, Metaspace or a Sequence of Replace, ByteFallback, Fuse and Strip',
  },
  {
    what: 'a unigram piece without a score',
    change: tokenizer((json) => {
      json.model = { type: 'Unigram', vocab: [['a', -1], ['b']], unk_id: 0 } as unknown as Json
    }),
    file: 'tokenizer.json',
    message: 'model.vocab[1]: expected a piece and its score, found ["b"]',
  },
  {
    what: 'a SentencePiece model that is cut off',
    change: (folder) => {
      rmSync(join(folder, 'tokenizer.json'))
      writeFileSync(join(folder, 'tokenizer.model'), Buffer.from([0x0a, 0x40, 1, 2, 3]))
    },
    file: 'tokenizer.model',
    message: 'expected a SentencePiece model, found bytes that are none at 2',
  },
  {
    what: 'a vocabulary without merges',
    change: (folder) => {
      rmSync(join(folder, 'tokenizer.json'))
      writeFileSync(join(folder, 'vocab.json'), '{"a": 0}')
    },
    file: 'merges.txt',
    message: 'expected the merges of vocab.json, found no such file',
  },
  {
    what: 'an id that is none',
    change: tokenizer(({ model }) => {
      ;(model.vocab as Json).the = -1
    }),
    file: 'tokenizer.json',
    message: 'model.vocab.the: expected an integer from 0 to 4194303, found -1',
  },
  {
    what: 'a merge without a result',
    change: tokenizer(({ model }) => {
      ;(model.merges as unknown[])[3] = ['q', 'q']
    }),
    file: 'tokenizer.json',
    message: 'merges[3]: expected two tokens that join to a third, found ["q","q"]',
  },
  {
    what: 'an added token without text',
    change: tokenizer((json) => {
      json.added_tokens = [{ id: 0 }]
    }),
    file: 'tokenizer.json',
    message: 'added_tokens[0].content: expected the text of the token, found no such key',
  },
  {
    what: 'a BOS that is no token',
    change: text('tokenizer_config.json', '{"add_bos_token": true, "bos_token": "<s>"}'),
    file: 'tokenizer_config.json',
    message: 'add_bos_token: expected false, because the tokenizer has no such token, found true',
  },
]

describe('a broken folder is refused in one line:', () => {
  test.each(breaks)('$what', async ({ from = 'neox-parallel', change, file, message }) => {
    const folder = copyOf(from)
    change(folder)
    const found = await failure(folder)
    expect(found).toContain(message)
    expect(found.startsWith(`${join(folder, file)}: `)).toBe(true)
  })

  test('a folder that is not there', async () => {
    const folder = join(emptyFolder(), 'nothing')
    expect(await failure(folder)).toBe(`${folder}: expected a model folder, or org/name of a hub, found nothing there`)
  })

  test('a file in place of a folder', async () => {
    const file = join(fixture('neox-parallel'), 'config.json')
    expect(await failure(file)).toBe(`${file}: expected a model folder with config.json inside, found a file`)
  })

  test('an empty folder', async () => {
    expect(await failure(emptyFolder())).toContain(
      'config.json: expected a Hugging Face model config, found no such file',
    )
  })
})

test('a header full of garbage never gets past the checks', async () => {
  const folder = copyOf('neox-parallel')
  const file = join(folder, WEIGHTS)
  const bytes = readFileSync(file)
  const length = Number(bytes.readBigUInt64LE())
  for (let trial = 0; trial < 200; trial++) {
    const text = bytes.toString('latin1', 8, 8 + length)
    const at = (trial * 7919) % length
    const broken = `${text.slice(0, at)}${'0]}"{,9'[trial % 7]}${text.slice(at + 1)}`
    writeFileSync(file, safetensors(broken, bytes.subarray(8 + length)))
    const result = await loadModel(folder).catch((error) => error)
    // An unchanged character is harmless; anything else is a ModelError.
    if (result instanceof Error) expect(result).toBeInstanceOf(ModelError)
    else expect(result.tensors).toHaveLength(36)
  }
})

async function failure(folder: string): Promise<string> {
  const error: unknown = await loadModel(folder).catch((reason) => reason)
  expect(error).toBeInstanceOf(ModelError)
  const { message } = error as ModelError
  expect(message).not.toContain('\n')
  return message
}
