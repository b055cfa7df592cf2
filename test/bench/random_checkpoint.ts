// A checkpoint folder with random 16-bit weights, of any GPT-NeoX or Llama shape: for speed and memory only.

import { closeSync, cpSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { seededRandom } from '../engine/random_model.js'

export interface Shape {
  vocab: number
  hidden: number
  layers: number
  heads: number
  positions: number
  /** Llama: key and value heads, and the width of its gated MLP. GPT-NeoX without. */
  llama?: { kvHeads: number; intermediate: number }
}

type Tensors = [name: string, dims: number[]][]

/** Writes config.json and model.safetensors for `shape` into `folder`, with the tokenizer of `tokenizerFolder`. */
export function writeRandomCheckpoint(
  folder: string,
  shape: Shape,
  tokenizerFolder: string,
  dtype: 'float16' | 'bfloat16' = 'float16',
): void {
  const tensors = shape.llama ? llamaTensors(shape, shape.llama) : neoxTensors(shape)
  writeWeights(join(folder, 'model.safetensors'), tensors, dtype)
  const config = {
    ...(shape.llama ? llamaConfig(shape, shape.llama) : neoxConfig),
    vocab_size: shape.vocab,
    hidden_size: shape.hidden,
    num_hidden_layers: shape.layers,
    num_attention_heads: shape.heads,
    intermediate_size: shape.llama?.intermediate ?? 4 * shape.hidden,
    max_position_embeddings: shape.positions,
    tie_word_embeddings: false,
    torch_dtype: dtype,
    eos_token_id: 0,
    bos_token_id: 0,
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config))
  for (const name of ['tokenizer.json', 'tokenizer_config.json'])
    cpSync(join(tokenizerFolder, name), join(folder, name))
}

function llamaTensors({ vocab, hidden, layers, heads }: Shape, llama: NonNullable<Shape['llama']>): Tensors {
  const tensors: Tensors = [['model.embed_tokens.weight', [vocab, hidden]]]
  const kv = (hidden / heads) * llama.kvHeads
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, ...dims: number[]) => tensors.push([`model.layers.${layer}.${name}.weight`, dims])
    add('input_layernorm', hidden)
    add('post_attention_layernorm', hidden)
    add('self_attn.q_proj', hidden, hidden)
    add('self_attn.k_proj', kv, hidden)
    add('self_attn.v_proj', kv, hidden)
    add('self_attn.o_proj', hidden, hidden)
    add('mlp.gate_proj', llama.intermediate, hidden)
    add('mlp.up_proj', llama.intermediate, hidden)
    add('mlp.down_proj', hidden, llama.intermediate)
  }
  tensors.push(['model.norm.weight', [hidden]], ['lm_head.weight', [vocab, hidden]])
  return tensors
}

function neoxTensors({ vocab, hidden, layers }: Shape): Tensors {
  const tensors: Tensors = [['gpt_neox.embed_in.weight', [vocab, hidden]]]
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
  return tensors
}

function writeWeights(path: string, tensors: Tensors, dtype: 'float16' | 'bfloat16'): void {
  let offset = 0
  const header: Record<string, unknown> = { __metadata__: { format: 'pt' } }
  for (const [name, dims] of tensors) {
    const bytes = 2 * dims.reduce((product, dim) => product * dim, 1)
    header[name] = { dtype: dtype === 'float16' ? 'F16' : 'BF16', shape: dims, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const file = openSync(path, 'w')
  writeSync(file, length)
  writeSync(file, text)
  const next = seededRandom(1)
  for (let left = offset / 2; left > 0; ) {
    const numbers = new Uint16Array(Math.min(left, 1 << 22))
    // Random signs and mantissas around 2^-6: small enough for a deep random model to keep finite numbers.
    for (let i = 0; i < numbers.length; i++) {
      const random = (next() * 65536) | 0
      numbers[i] = dtype === 'float16' ? (9 << 10) | (random & 0x83ff) : (121 << 7) | (random & 0x807f)
    }
    writeSync(file, new Uint8Array(numbers.buffer))
    left -= numbers.length
  }
  closeSync(file)
}

const neoxConfig = {
  architectures: ['GPTNeoXForCausalLM'],
  model_type: 'gpt_neox',
  hidden_act: 'gelu',
  rotary_pct: 0.25,
  rotary_emb_base: 10000,
  layer_norm_eps: 1e-5,
  use_parallel_residual: true,
}

function llamaConfig(shape: Shape, llama: NonNullable<Shape['llama']>): object {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    num_key_value_heads: llama.kvHeads,
    head_dim: shape.hidden / shape.heads,
    rope_theta: 10000,
    rms_norm_eps: 1e-5,
  }
}
