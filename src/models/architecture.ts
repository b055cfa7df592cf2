// What a row of the table of architectures says, and the shapes that every checkpoint's tensors must have.

import { type ModelSpec, type TensorRole, TensorRoleValues } from '../engine/contract.js'
import type { Fields } from './fields.js'

/** A spec without what the tokenizer decides. */
export type ConfigSpec = Omit<ModelSpec, 'num_sampled_ids'>

/** The stored rows of one canonical tensor, when it shares a stored tensor with others. */
export interface RowGroups {
  stored_rows: number
  first_row: number
  group_rows: number
  group_stride: number
  num_groups: number
}

/** Where a checkpoint keeps one canonical tensor. */
export interface StoredName {
  /** `{layer}` stands for the decoder block, `{part}` for the head or expert that has the tensor for itself. Names are tried in turn. */
  names: [string, ...string[]]
  /** True for names that never carry the architecture's prefix. */
  bare?: true
  /** Left out: the stored tensor is the canonical one. */
  rows?: (spec: ModelSpec) => RowGroups
  /** True for matrices stored as [columns, rows]. */
  transposed?: true
  /** Added to every stored number. */
  addend?: number
}

export interface Architecture {
  /** `model_type` in config.json, used when `architectures` is absent. */
  modelType: string
  /** Before the names of the base model's tensors, tried in turn; checkpoints saved from the base model have none. */
  prefixes: [string, ...string[]]
  spec(config: Fields): ConfigSpec
  /** Roles that this config has no tensors for; none when left out. */
  absent?(config: Fields): TensorRole[]
  tensors: Partial<Record<TensorRole, StoredName>> & Record<'embedding' | 'unembedding', StoredName>
  /** Of an encoder's blocks, by the role that the decoder's tensors have. */
  encoderTensors?: Partial<Record<TensorRole, StoredName>>
  /** An unembedding that differs from the embedding is used although the config ties them. */
  storedUnembeddingWins?: true
  /** Why float16 gives wrong numbers, where it does. */
  float16Problem?: string
  /** Buffers that old checkpoints store and that are computed instead. */
  ignored: RegExp
}

/** One canonical tensor of a model, and where a checkpoint keeps it. */
export interface WantedTensor {
  role: TensorRole
  encoder: boolean
  layer: number
  part: number
  stored: StoredName
}

/** Roles in front of this one have one tensor, the others one for each block. */
const FIRST_OF_BLOCK = TensorRoleValues.indexOf('attention_norm_weight')

/** All the tensors that a config's model is made of. An unembedding that is tied to the embedding is none. */
export function* wantedTensors(row: Architecture, config: Fields, spec: ConfigSpec): Generator<WantedTensor> {
  const absent = new Set(row.absent?.(config))
  if (spec.tie_word_embeddings) absent.add('unembedding')
  for (const encoder of [false, true]) {
    for (const [index, role] of TensorRoleValues.entries()) {
      const stored = (encoder ? row.encoderTensors : row.tensors)?.[role]
      if (stored === undefined || absent.has(role)) continue
      const blocks = encoder ? spec.num_encoder_layers : spec.num_layers
      const layers = index < FIRST_OF_BLOCK ? 1 : blocks
      for (let layer = 0; layer < layers; layer++) {
        for (let part = 0; part < numParts(role, spec, layer); part++) yield { role, encoder, layer, part, stored }
      }
    }
  }
}

/** Shape of a canonical tensor, or of one part of it: a matrix's rows and columns, or a vector's rows alone. */
export function canonicalShape(role: TensorRole, spec: ConfigSpec): [rows: number, cols?: number] {
  const query = spec.num_heads * spec.head_dim
  const kv = spec.num_kv_heads * spec.head_dim
  const embedding = spec.embedding_size || spec.hidden_size
  switch (role) {
    case 'embedding':
    case 'unembedding':
      return [spec.vocab_size, embedding]
    case 'unembedding_bias':
      return [spec.vocab_size]
    case 'position_embedding':
      return [spec.max_position, spec.hidden_size]
    case 'embedding_projection':
      return [spec.hidden_size, embedding]
    case 'output_projection':
      return [embedding, spec.hidden_size]
    case 'relative_bias':
      return [spec.relative_buckets, spec.num_heads]
    case 'query_weight':
    case 'cross_query_weight':
      return [query, spec.hidden_size]
    case 'key_weight':
    case 'value_weight':
    case 'cross_key_weight':
    case 'cross_value_weight':
      return [kv, spec.hidden_size]
    case 'attention_out_weight':
    case 'cross_out_weight':
      return [spec.hidden_size, query]
    case 'mlp_gate_weight':
    case 'mlp_up_weight':
      return [spec.intermediate_size, spec.hidden_size]
    case 'mlp_down_weight':
      return [spec.hidden_size, spec.intermediate_size]
    case 'router_weight':
      return [spec.num_experts, spec.hidden_size]
    case 'expert_gate_weight':
    case 'expert_up_weight':
      return [spec.moe_intermediate_size, spec.hidden_size]
    case 'expert_down_weight':
      return [spec.hidden_size, spec.moe_intermediate_size]
    case 'query_bias':
      return [query]
    case 'key_bias':
    case 'value_bias':
      return [kv]
    case 'query_norm_weight':
    case 'query_norm_bias':
      return [spec.qk_norm === 'whole' ? query : spec.head_dim]
    case 'key_norm_weight':
    case 'key_norm_bias':
      return [spec.qk_norm === 'whole' ? kv : spec.head_dim]
    case 'mlp_gate_bias':
    case 'mlp_up_bias':
      return [spec.intermediate_size]
    default:
      return [spec.hidden_size]
  }
}

/** How many stored tensors share a role in a block; 0 where the block has no use for the role. */
function numParts(role: TensorRole, spec: ConfigSpec, layer: number): number {
  const mixed = spec.num_experts > 0 && !spec.dense_layers.includes(layer)
  switch (role) {
    case 'router_weight':
      return mixed ? 1 : 0
    case 'expert_gate_weight':
    case 'expert_up_weight':
    case 'expert_down_weight':
      return mixed ? spec.num_experts : 0
    case 'mlp_gate_weight':
    case 'mlp_gate_bias':
    case 'mlp_up_weight':
    case 'mlp_up_bias':
    case 'mlp_down_weight':
    case 'mlp_down_bias':
      return mixed ? 0 : 1
    case 'query_norm_weight':
    case 'query_norm_bias':
      return spec.qk_norm === 'each_head' ? spec.num_heads : 1
    case 'key_norm_weight':
    case 'key_norm_bias':
      return spec.qk_norm === 'each_head' ? spec.num_kv_heads : 1
    default:
      return 1
  }
}
