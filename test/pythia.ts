// A model whose sizes tests know.

import { Fields } from '../src/models/fields.js'
import { outlineOf } from '../src/models/outline.js'

/** Pythia-1.4B: 2.63 GiB of weights, 196,608 bytes of KV a token. */
export const pythia = outlineOf(
  new Fields('config.json', {
    architectures: ['GPTNeoXForCausalLM'],
    vocab_size: 50304,
    hidden_size: 2048,
    num_hidden_layers: 24,
    num_attention_heads: 16,
    intermediate_size: 8192,
    max_position_embeddings: 2048,
    torch_dtype: 'float16',
  }),
)
