import { describe, expect, test } from 'vitest'
import { TensorRoleValues } from '../../src/engine/contract.js'
import { architectureOf, architectures } from '../../src/models/architectures.js'
import { Fields } from '../../src/models/fields.js'
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

describe('GPTNeoXForCausalLM', () => {
  test('reads the config of Pythia-160M', () => {
    expect(spec({})).toEqual({
      vocab_size: 50304,
      hidden_size: 768,
      num_layers: 12,
      num_heads: 12,
      num_kv_heads: 12,
      head_dim: 64,
      intermediate_size: 3072,
      max_position: 2048,
      rope_dims: 16,
      rope_theta: 10000,
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
    expect(spec(changes)).toMatchObject({ rope_dims, rope_theta })
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
      { rope_scaling: { type: 'linear', factor: 2 } },
      'rope_scaling.type: expected "default" (other rotary scalings are not built yet), found "linear"',
    ],
    [
      'a rotary scaling of transformers 5',
      { rope_parameters: { rope_type: 'yarn' } },
      'rope_parameters.rope_type: expected "default" (other rotary scalings are not built yet), found "yarn"',
    ],
    [
      'an activation',
      { hidden_act: 'quick_gelu' },
      'hidden_act: expected one of gelu, gelu_python, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, found "quick_gelu"',
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
      { architectures: ['LlamaForCausalLM'] },
      'architectures: expected a supported one (GPTNeoXForCausalLM), found ["LlamaForCausalLM"]',
    ],
    [
      'a class that only looks known',
      { architectures: ['constructor'] },
      'architectures: expected a supported one (GPTNeoXForCausalLM), found ["constructor"]',
    ],
    [
      'architectures that are no list',
      { architectures: 'GPTNeoXForCausalLM' },
      'architectures: expected a list of class names, found "GPTNeoXForCausalLM"',
    ],
    [
      'another model_type without a class',
      { architectures: null, model_type: 'opt' },
      'model_type: expected one of gpt_neox, found "opt"',
    ],
    [
      'neither class nor model_type',
      { architectures: null, model_type: null },
      'architectures: expected a list with a supported class (GPTNeoXForCausalLM), found no such key',
    ],
  ])('refuses %s', (_, changes, message) => {
    expect(() => spec(changes)).toThrow(`config.json: ${message}`)
  })
})

test('model_type is enough where a config names no class', () => {
  expect(spec({ architectures: null })).toEqual(spec({}))
})

test('every row names every role of the decoder', () => {
  for (const row of Object.values(architectures))
    expect(Object.keys(row.tensors).toSorted()).toEqual(TensorRoleValues.toSorted())
})
