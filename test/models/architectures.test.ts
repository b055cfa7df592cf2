import { describe, expect, test } from 'vitest'
import { architectureOf, architectures } from '../../src/models/architectures.js'
import { Fields } from '../../src/models/fields.js'
import { frequencies, rope } from '../../src/models/rope.js'
import { plain } from '../../src/models/spec.js'
import type { Json } from './scratch.js'

// EleutherAI/pythia-160m's config.json, the keys that matter.
const pythia = {
  architectures: ['GPTNeoXForCausalLM'],
  model_type: 'gpt_neox',
  hidden_act: 'gelu',
  hidden_size: 768,
  intermediate_size: 3072,
  layer_norm_eps: 1e-5,
  max_position_embeddings: 2048,
  num_attention_heads: 12,
  num_hidden_layers: 12,
  rotary_emb_base: 10000,
  rotary_pct: 0.25,
  tie_word_embeddings: false,
  torch_dtype: 'float16',
  use_parallel_residual: true,
  vocab_size: 50304,
}

function spec(changes: Json) {
  const config = new Fields('config.json', { ...pythia, ...changes })
  return architectureOf(config).row.spec(config)
}

const supported = Object.keys(architectures).join(', ')
const modelTypes = Object.values(architectures)
  .map((row) => row.modelType)
  .join(', ')

describe('GPTNeoXForCausalLM', () => {
  test('reads the config of Pythia-160M', () => {
    expect(spec({})).toEqual({
      ...plain,
      vocab_size: 50304,
      hidden_size: 768,
      num_layers: 12,
      num_heads: 12,
      num_kv_heads: 12,
      head_dim: 64,
      intermediate_size: 3072,
      max_position: 2048,
      rope_frequencies: frequencies(10000, 16),
      norm_eps: 1e-5,
      attention_scale: 0.125,
      activation: 'gelu',
      topology: 'parallel',
      tie_word_embeddings: false,
    })
  })

  test('takes the class defaults for keys that a config leaves out', () => {
    const absent = {
      hidden_act: null,
      layer_norm_eps: null,
      rotary_pct: null,
      rotary_emb_base: null,
      use_parallel_residual: null,
    }
    expect(spec({ ...absent, tie_word_embeddings: null })).toEqual(spec({}))
  })

  const noRotary = { rotary_pct: null, rotary_emb_base: null }
  test.each<[string, Json, number, number]>([
    ['rotary_pct and rotary_emb_base', { rotary_pct: 0.5, rotary_emb_base: 500 }, 32, 500],
    ['partial_rotary_factor and rope_theta', { ...noRotary, partial_rotary_factor: 0.5, rope_theta: 500 }, 32, 500],
    [
      'rope_parameters of transformers 5',
      { ...noRotary, rope_parameters: { rope_type: 'default', rope_theta: 500, partial_rotary_factor: 0.5 } },
      32,
      500,
    ],
    [
      'rope_parameters before the keys of the top level',
      { rope_parameters: { rope_theta: 500, partial_rotary_factor: 0.5 } },
      32,
      500,
    ],
    [
      'its own names before the general ones',
      { rotary_pct: 0.5, partial_rotary_factor: 1, rotary_emb_base: 500, rope_theta: 1 },
      32,
      500,
    ],
    ['a rope_scaling that scales nothing', { rope_scaling: { type: 'default' } }, 16, 10000],
    ['a fraction that is cut to whole dims', { rotary_pct: 0.26 }, 16, 10000],
    ['no rotation at all', { rotary_pct: 0 }, 0, 10000],
  ])('reads %s', (_, changes, rope_dims, rope_theta) => {
    expect(spec(changes)).toMatchObject({ rope_frequencies: frequencies(rope_theta, rope_dims) })
  })

  test.each([
    ['gelu', 'gelu'],
    ['gelu_python', 'gelu'],
    ['gelu_new', 'gelu_tanh'],
    ['gelu_fast', 'gelu_tanh'],
    ['gelu_pytorch_tanh', 'gelu_tanh'],
    ['relu', 'relu'],
  ])('hidden_act %s is %s', (hidden_act, activation) => {
    expect(spec({ hidden_act })).toMatchObject({ activation })
  })

  test('use_parallel_residual false is the sequential topology', () => {
    expect(spec({ use_parallel_residual: false })).toMatchObject({ topology: 'sequential' })
  })

  test('query, key and value are the thirds of each head’s rows', () => {
    const { row } = architectureOf(new Fields('config.json', pythia))
    const full = { ...spec({}), num_sampled_ids: 50277 }
    const rows = (['query_weight', 'key_weight', 'value_bias'] as const).map((role) => row.tensors[role]?.rows?.(full))
    const groups = { stored_rows: 2304, group_rows: 64, group_stride: 192, num_groups: 12 }
    expect(rows).toEqual([
      { ...groups, first_row: 0 },
      { ...groups, first_row: 64 },
      { ...groups, first_row: 128 },
    ])
  })

  test.each<[string, Json, string]>([
    [
      'a rotary scaling',
      { rope_scaling: { type: 'mrope', factor: 2 } },
      'rope_scaling.type: expected one of default, linear, dynamic, llama3, yarn, longrope, found "mrope"',
    ],
    [
      'a rotary scaling of transformers 5',
      { rope_parameters: { rope_type: 'proportional' } },
      'rope_parameters.rope_type: expected one of default, linear, dynamic, llama3, yarn, longrope, found "proportional"',
    ],
    [
      'an activation',
      { hidden_act: 'quick_gelu' },
      'hidden_act: expected one of gelu, gelu_python, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu, swish, found "quick_gelu"',
    ],
    [
      'an odd number of rotary dims',
      { rotary_pct: 0.3 },
      'rotary_pct: expected a fraction that rotates an even number of the 64 dims of a head, not 19, found 0.3',
    ],
    [
      'heads that do not divide the width',
      { num_attention_heads: 7 },
      'hidden_size: expected a multiple of num_attention_heads (7), found 768',
    ],
    ['a string for a number', { hidden_size: '768' }, 'hidden_size: expected an integer from 1 to 131072, found "768"'],
    [
      'a fraction for a count',
      { num_hidden_layers: 1.5 },
      'num_hidden_layers: expected an integer from 1 to 1024, found 1.5',
    ],
    ['a missing key', { vocab_size: null }, 'vocab_size: expected an integer from 1 to 4194304, found no such key'],
    ['a number for a flag', { use_parallel_residual: 1 }, 'use_parallel_residual: expected true or false, found 1'],
    ['a list for an object', { rope_scaling: [1] }, 'rope_scaling: expected an object, found [1]'],
    [
      'another class',
      { architectures: ['MambaForCausalLM'] },
      `architectures: expected a supported one (${supported}), found ["MambaForCausalLM"]`,
    ],
    [
      'a class that only looks known',
      { architectures: ['constructor'] },
      `architectures: expected a supported one (${supported}), found ["constructor"]`,
    ],
    [
      'architectures that are no list',
      { architectures: 'GPTNeoXForCausalLM' },
      'architectures: expected a list of class names, found "GPTNeoXForCausalLM"',
    ],
    [
      'another model_type without a class',
      { architectures: null, model_type: 'mamba' },
      `model_type: expected one of ${modelTypes}, found "mamba"`,
    ],
    [
      'neither class nor model_type',
      { architectures: null, model_type: null },
      `architectures: expected a list with a supported class (${supported}), found no such key`,
    ],
  ])('refuses %s', (_, changes, message) => {
    expect(() => spec(changes)).toThrow(`config.json: ${message}`)
  })
})

// mistralai/Mixtral-8x7B-v0.1's and Qwen/Qwen3-30B-A3B's config.json, the keys that matter.
const mixtral = {
  architectures: ['MixtralForCausalLM'],
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  num_attention_heads: 32,
  num_experts_per_tok: 2,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  num_local_experts: 8,
  rms_norm_eps: 1e-5,
  rope_theta: 1e6,
  sliding_window: null,
  vocab_size: 32000,
}
const qwen3Moe = {
  architectures: ['Qwen3MoeForCausalLM'],
  decoder_sparse_step: 1,
  head_dim: 128,
  hidden_size: 2048,
  intermediate_size: 6144,
  max_position_embeddings: 40960,
  mlp_only_layers: [],
  moe_intermediate_size: 768,
  norm_topk_prob: true,
  num_attention_heads: 32,
  num_experts: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  sliding_window: null,
  use_sliding_window: false,
  vocab_size: 151936,
}

describe('mixtures of experts', () => {
  const specOf = (config: Json) => {
    const fields = new Fields('config.json', config)
    return architectureOf(fields).row.spec(fields)
  }

  test('Mixtral has experts of intermediate_size in every layer', () => {
    const expected = {
      num_experts: 8,
      num_experts_per_tok: 2,
      moe_intermediate_size: 14336,
      norm_topk_prob: true,
      dense_layers: new Int32Array(0),
      layer_windows: new Int32Array(0),
      rope_frequencies: frequencies(1e6, 128),
    }
    expect(specOf(mixtral)).toMatchObject(expected)
    const defaults = { num_experts_per_tok: null, num_local_experts: null, num_key_value_heads: null, rope_theta: null }
    expect(specOf({ ...mixtral, ...defaults })).toEqual(specOf(mixtral))
  })

  test.each<[string, Json, object]>([
    ['as it is', {}, { dense_layers: new Int32Array(0), num_experts: 128, num_experts_per_tok: 8, head_dim: 128 }],
    ['with the name that transformers 5 writes', { num_experts: null, num_local_experts: 64 }, { num_experts: 64 }],
    [
      'with the defaults of its class',
      { num_experts: null, num_experts_per_tok: null, norm_topk_prob: null, moe_intermediate_size: null },
      { num_experts: 128, num_experts_per_tok: 8, norm_topk_prob: false, moe_intermediate_size: 768 },
    ],
    [
      'with every third layer sparse and one of these dense',
      { num_hidden_layers: 7, decoder_sparse_step: 3, mlp_only_layers: [5] },
      { dense_layers: Int32Array.of(0, 1, 3, 4, 5, 6) },
    ],
    [
      'with a window',
      { use_sliding_window: true, sliding_window: 64, num_hidden_layers: 2 },
      { layer_windows: Int32Array.of(64, 64) },
    ],
  ])('reads the config of Qwen3-30B-A3B %s', (_, changes, expected) => {
    expect(specOf({ ...qwen3Moe, ...changes })).toMatchObject(expected)
  })

  test.each<[Json, string]>([
    [{ ...mixtral, num_local_experts: 0 }, 'num_local_experts: expected an integer from 1 to 1024, found 0'],
    [{ ...mixtral, num_experts_per_tok: 9 }, 'num_experts_per_tok: expected an integer from 1 to 8, found 9'],
    [{ ...qwen3Moe, mlp_only_layers: 'all' }, 'mlp_only_layers: expected a list of layers, found "all"'],
    [{ ...qwen3Moe, architectures: ['Qwen2MoeForCausalLM'] }, `expected a supported one (${supported})`],
  ])('refuses %j', (config, message) => {
    expect(() => specOf(config)).toThrow(message)
  })
})

test('model_type is enough where a config names no class', () => {
  expect(spec({ architectures: null })).toEqual(spec({}))
})

// Inverse frequencies of transformers' modeling_rope_utils.py at the pairs 0, 1, 16, 28, 32, 36, 48, 63 of heads of 128 dims.
test.each<[string, Json, number, number[]]>([
  [
    'linear',
    { factor: 2, rope_theta: 1e4 },
    1,
    [0.5, 0.432982177, 0.05, 0.00889139727, 0.005, 0.00281170662, 0.0005, 5.77390965e-5],
  ],
  [
    'llama3',
    { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192, rope_theta: 5e5 },
    1,
    [1, 0.814617217, 0.0376060307, 0.00321144611, 0.000524846022, 7.78465546e-5, 6.64786967e-6, 3.06892588e-7],
  ],
  [
    'yarn',
    { factor: 4, original_max_position_embeddings: 32768, rope_theta: 1e6 },
    1.138629436,
    [1, 0.805842221, 0.0316227786, 0.00184827659, 0.000602941145, 0.000179841154, 7.90569356e-6, 3.10234441e-7],
  ],
])('the frequencies of %s are those of transformers', (rope_type, parameters, scale, expected) => {
  const config = { max_position_embeddings: 131072, rope_parameters: { rope_type, ...parameters } }
  const { rope_frequencies, rope_scale } = rope(new Fields('config.json', config), 128)
  expect(rope_scale).toBeCloseTo(scale, 8)
  for (const [index, pair] of [0, 1, 16, 28, 32, 36, 48, 63].entries()) {
    const frequency = rope_frequencies[pair] as number
    expect(Math.abs(frequency / (expected[index] as number) - 1), `pair ${pair}`).toBeLessThan(3e-7)
  }
})

test("Phi-3's first names for longrope, su and yarn, mean longrope", () => {
  const frequenciesOf = (type: string) => {
    const factors = { short_factor: [1, 2], long_factor: [3, 4], original_max_position_embeddings: 64 }
    const config = { max_position_embeddings: 128, rope_scaling: { type, ...factors } }
    return rope(new Fields('config.json', config), 4, { defaultFactor: 1, yarnIsLongrope: true })
  }
  expect(frequenciesOf('su')).toEqual(frequenciesOf('longrope'))
  expect(frequenciesOf('yarn')).toEqual(frequenciesOf('longrope'))
  expect(frequenciesOf('su')).toMatchObject({
    long_rope_above: 64,
    rope_scale: Math.sqrt(1 + Math.log(2) / Math.log(64)),
  })
})

test('every row names the matrices that every decoder has', () => {
  const roles = ['embedding', 'unembedding', 'query_weight', 'key_weight', 'value_weight', 'attention_out_weight']
  const mlp = ['mlp_up_weight', 'mlp_down_weight']
  const mixture = ['router_weight', 'expert_gate_weight', 'expert_up_weight', 'expert_down_weight']
  for (const [name, row] of Object.entries(architectures)) {
    const found = Object.keys(row.tensors)
    expect(found, name).toEqual(
      expect.arrayContaining([...roles, ...(found.includes('router_weight') ? mixture : mlp)]),
    )
  }
})
