// A GPT-NeoX checkpoint folder with random float16 weights, of any shape: for speed and memory only.

import { closeSync, cpSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { seededRandom } from '../engine/random_model.js'

export interface NeoxShape {
  vocab: number
  hidden: number
  layers: number
  heads: number
  positions: number
}

/** Writes config.json and model.safetensors for `shape` into `folder`, with the tokenizer of `tokenizerFolder`. */
export function writeRandomCheckpoint(folder: string, shape: NeoxShape, tokenizerFolder: string): void {
  const { vocab, hidden, layers, heads, positions } = shape
  const tensors: [name: string, shape: number[]][] = [['gpt_neox.embed_in.weight', [vocab, hidden]]]
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, ...dims: number[]) => tensors.push([`gpt_neox.layers.${layer}.${name}`, dims])
    for (const norm of ['input_layernorm', 'post_attention_layernorm']) {
      add(`${norm}.weight`, hidden)
      add(`${norm}.bias`, hidden)
    }
    for (const [name, rows, cols] of [
      ['attention.query_key_value', 3 * hidden, hidden],
      ['attention.dense', hidden, hidden],
      ['mlp.dense_h_to_4h', 4 * hidden, hidden],
      ['mlp.dense_4h_to_h', hidden, 4 * hidden],
    ] as const) {
      add(`${name}.weight`, rows, cols)
      add(`${name}.bias`, rows)
    }
  }
  tensors.push(['gpt_neox.final_layer_norm.weight', [hidden]], ['gpt_neox.final_layer_norm.bias', [hidden]])
  tensors.push(['embed_out.weight', [vocab, hidden]])

  let offset = 0
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } }
  for (const [name, dims] of tensors) {
    const bytes = 2 * dims.reduce((product, dim) => product * dim, 1)
    header[name] = { dtype: 'F16', shape: dims, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const file = openSync(join(folder, 'model.safetensors'), 'w')
  writeSync(file, length)
  writeSync(file, text)
  const next = seededRandom(1)
  for (let left = offset / 2; left > 0; ) {
    const numbers = new Uint16Array(Math.min(left, 1 << 22))
    // Random signs and mantissas around 2^-6: small enough for a deep random model to keep finite numbers.
    for (let i = 0; i < numbers.length; i++) {
      const random = (next() * 65536) | 0
      numbers[i] = (9 << 10) | (random & 0x83ff)
    }
    writeSync(file, new Uint8Array(numbers.buffer))
    left -= numbers.length
  }
  closeSync(file)

  const config = {
    architectures: ['GPTNeoXForCausalLM'],
    model_type: 'gpt_neox',
    vocab_size: vocab,
    hidden_size: hidden,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    intermediate_size: 4 * hidden,
    hidden_act: 'gelu',
    rotary_pct: 0.25,
    rotary_emb_base: 10000,
    max_position_embeddings: positions,
    layer_norm_eps: 1e-5,
    use_parallel_residual: true,
    tie_word_embeddings: false,
    torch_dtype: 'float16',
    eos_token_id: 0,
    bos_token_id: 0,
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    cpSync(join(tokenizerFolder, name), join(folder, name))
}
