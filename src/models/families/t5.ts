// T5 and its kin: an encoder reads the prompt, the decoder answers. No positions but learned biases of the scores by distance, no
// attention scale, RMSNorm, no biases.

import type { Architecture, ConfigSpec } from '../architecture.js'
import type { Fields } from '../fields.js'
import { weight } from '../layouts.js'
import { activationNamed, intermediateSize, plain } from '../spec.js'

/** Distances saturate in the last bucket, so nothing but memory bounds the length; trained were 512 to 1024 tokens. */
const MAX_POSITION = 4096

/** `mt5`: the class whose defaults are a gated MLP and untied embeddings, and which never scales. */
function t5Spec(config: Fields, mt5: boolean): ConfigSpec {
  const hidden_size = config.int('d_model', 1, 131072, 512)
  const num_heads = config.int('num_heads', 1, 1024, mt5 ? 6 : 8)
  const vocab_size = config.int('vocab_size', 1, 4194304)
  const num_encoder_layers = config.int('num_layers', 1, 1024, mt5 ? 8 : 6)
  // transformers 5 writes a tie into every config, and beside it what transformers 4 concluded from the true one.
  const written = config.flag('tie_word_embeddings', !mt5)
  const scaled = !mt5 && config.flag('scale_decoder_outputs', written)
  const tied = written && (mt5 || scaled)
  return {
    ...plain,
    vocab_size,
    hidden_size,
    num_layers: config.int('num_decoder_layers', 1, 1024, num_encoder_layers),
    num_encoder_layers,
    decoder_start_token: config.int(
      'decoder_start_token_id',
      0,
      vocab_size - 1,
      config.int('pad_token_id', 0, vocab_size - 1, 0),
    ),
    num_heads,
    num_kv_heads: num_heads,
    head_dim: config.int('d_kv', 1, 1024, 64),
    intermediate_size: intermediateSize(config, 'd_ff', mt5 ? 1024 : 2048),
    max_position: MAX_POSITION,
    ...relativeBias(config),
    attention_scale: 1,
    norm: 'rms',
    norm_eps: config.real('layer_norm_epsilon', 0, 1, 1e-6),
    ...feedForward(config, mt5 ? 'gated-gelu' : 'relu'),
    unembedding_scale: scaled ? hidden_size ** -0.5 : 1,
    tie_word_embeddings: tied,
  }
}

/** A decoder has half of its buckets for one distance each; where the others end lies beyond. */
function relativeBias(config: Fields): Pick<ConfigSpec, 'relative_buckets' | 'relative_max_distance'> {
  const relative_buckets = config.int('relative_attention_num_buckets', 4, 4096, 32)
  if (relative_buckets % 4 !== 0) throw config.error('relative_attention_num_buckets', 'a multiple of 4')
  return {
    relative_buckets,
    relative_max_distance: config.int('relative_attention_max_distance', relative_buckets / 2 + 1, 65536, 128),
  }
}

/** "relu" or "gated-gelu"; the gelu of the gated kind is the one with tanh. */
function feedForward(config: Fields, fallback: string): Pick<ConfigSpec, 'activation' | 'gated_mlp'> {
  const name = config.text('feed_forward_proj') ?? fallback
  const gated_mlp = name.startsWith('gated-')
  const activation = activationNamed(name === 'gated-gelu' ? 'gelu_new' : name.replace('gated-', ''))
  if (activation !== undefined) return { activation, gated_mlp }
  throw config.error('feed_forward_proj', 'relu, gated-gelu or another known activation')
}

/** Attention and MLP of a block; the MLP is the decoder's third layer and the encoder's second. */
function blocks(stack: string, mlp: number) {
  const block = `${stack}.block.{layer}.layer`
  return {
    ...weight('final_norm', `${stack}.final_layer_norm`),
    relative_bias: {
      names: [`${stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight`] as [string],
    },
    ...weight('attention_norm', `${block}.0.layer_norm`),
    ...weight('query', `${block}.0.SelfAttention.q`),
    ...weight('key', `${block}.0.SelfAttention.k`),
    ...weight('value', `${block}.0.SelfAttention.v`),
    ...weight('attention_out', `${block}.0.SelfAttention.o`),
    ...weight('mlp_norm', `${block}.${mlp}.layer_norm`),
    ...weight('mlp_gate', `${block}.${mlp}.DenseReluDense.wi_0`),
    mlp_up_weight: {
      names: [`${block}.${mlp}.DenseReluDense.wi.weight`, `${block}.${mlp}.DenseReluDense.wi_1.weight`] as [
        string,
        string,
      ],
    },
    ...weight('mlp_down', `${block}.${mlp}.DenseReluDense.wo`),
  }
}

function t5Of(modelType: string, mt5: boolean): Architecture {
  return {
    modelType,
    prefixes: [''],
    spec: (config) => t5Spec(config, mt5),
    absent: (config) => (feedForward(config, mt5 ? 'gated-gelu' : 'relu').gated_mlp ? [] : ['mlp_gate_weight']),
    tensors: {
      embedding: { names: ['shared.weight', 'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'] },
      unembedding: { names: ['lm_head.weight'] },
      ...blocks('decoder', 2),
      ...weight('cross_norm', 'decoder.block.{layer}.layer.1.layer_norm'),
      ...weight('cross_query', 'decoder.block.{layer}.layer.1.EncDecAttention.q'),
      ...weight('cross_key', 'decoder.block.{layer}.layer.1.EncDecAttention.k'),
      ...weight('cross_value', 'decoder.block.{layer}.layer.1.EncDecAttention.v'),
      ...weight('cross_out', 'decoder.block.{layer}.layer.1.EncDecAttention.o'),
    },
    encoderTensors: blocks('encoder', 1),
    float16Problem: 'hidden states of the T5 family grow beyond its range',
    storedUnembeddingWins: true, // transformers 5 writes a tie into every config
    ignored: /^(encoder|decoder)\.embed_tokens\.weight$|\.EncDecAttention\.relative_attention_bias\.weight$/,
  }
}

/** T5 v1.0 and v1.1, Flan-T5, T0. */
export const t5 = t5Of('t5', false)
/** mT5, mT0. */
export const mt5 = t5Of('mt5', true)
