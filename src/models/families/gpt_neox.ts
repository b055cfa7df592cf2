// GPT-NeoX, Pythia and their kin: parallel blocks with a norm for each branch, rotation of a part of each head.

import type { Architecture } from '../architecture.js'
import { fusedQkv, linear, perHead } from '../layouts.js'
import { rope } from '../rope.js'
import { activation, intermediateSize, maxPosition, plain, shape } from '../spec.js'

export const gptNeox: Architecture = {
  modelType: 'gpt_neox',
  prefixes: ['gpt_neox.'],
  spec(config) {
    const sizes = shape(config, {
      hidden: ['hidden_size'],
      layers: ['num_hidden_layers'],
      heads: ['num_attention_heads'],
    })
    return {
      ...plain,
      ...sizes,
      intermediate_size: intermediateSize(config),
      max_position: maxPosition(config),
      ...rope(config, sizes.head_dim, { theta: 'rotary_emb_base', factor: 'rotary_pct', defaultFactor: 0.25 }),
      norm_eps: config.real('layer_norm_eps', 0, 1, 1e-5),
      activation: activation(config, 'hidden_act', 'gelu'),
      topology: config.flag('use_parallel_residual', true) ? 'parallel' : 'sequential',
      tie_word_embeddings: config.flag('tie_word_embeddings', false),
    }
  },
  absent: (config) =>
    config.flag('attention_bias', true) ? [] : ['query_bias', 'key_bias', 'value_bias', 'attention_out_bias'],
  tensors: {
    embedding: { names: ['embed_in.weight'] },
    unembedding: { names: ['embed_out.weight', 'lm_head.weight'], bare: true },
    ...linear('final_norm', 'final_layer_norm'),
    ...linear('attention_norm', 'layers.{layer}.input_layernorm'),
    ...linear('mlp_norm', 'layers.{layer}.post_attention_layernorm'),
    ...fusedQkv('layers.{layer}.attention.query_key_value', perHead),
    ...linear('attention_out', 'layers.{layer}.attention.dense'),
    ...linear('mlp_up', 'layers.{layer}.mlp.dense_h_to_4h'),
    ...linear('mlp_down', 'layers.{layer}.mlp.dense_4h_to_h'),
  },
  ignored: /^layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/,
}
