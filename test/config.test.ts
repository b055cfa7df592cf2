// The table of options: flags, variables, defaults, and what is told about a wrong value.

import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import {
  kvCacheBytes,
  memoryText,
  OptionError,
  optionHelp,
  optionsMarkdown,
  readOptions,
  serveOptions,
} from '../src/config.js'

test('a flag wins over its variable, a variable over the default', () => {
  expect(readOptions({}, {})).toMatchObject({
    host: '127.0.0.1',
    port: 8000,
    dtype: 'auto',
    max_num_seqs: 64,
    api_key: null,
    log_level: 'info',
  })
  expect(readOptions({}, { PARLEY_PORT: '9000', PARLEY_MAX_MODEL_LEN: '' })).toMatchObject({
    port: 9000,
    max_model_len: null,
  })
  expect(readOptions({ port: '0' }, { PARLEY_PORT: '9000' })).toMatchObject({ port: 0 })
})

test('memory: bytes, units and fractions', () => {
  const size = (text: string) => readOptions({ kv_cache_memory: text }, {}).kv_cache_memory
  expect(size('512MiB')).toEqual({ bytes: 2 ** 29 })
  expect(size('2GB')).toEqual({ bytes: 2e9 })
  expect(size('1.5 gib')).toEqual({ bytes: 1.5 * 2 ** 30 })
  expect(size('1048576')).toEqual({ bytes: 2 ** 20 })
  expect(size('64k')).toEqual({ bytes: 64000 })
  expect(size('0.5')).toEqual({ fraction: 0.5 })
  expect(size('1')).toEqual({ fraction: 1 })
  expect(kvCacheBytes({ bytes: 7 }, 100, 50)).toBe(7)
  expect(kvCacheBytes({ fraction: 0.5 }, 100, 500)).toBe(50)
  expect(kvCacheBytes({ fraction: 0.5 }, 100, 20)).toBe(20)
})

test('a part of the GPU', () => {
  const value = (text?: string) => readOptions({ gpu_memory_utilization: text }, {}).gpu_memory_utilization
  expect([value(), value('0.5'), value('.25'), value('1')]).toEqual([0.9, 0.5, 0.25, 1])
  for (const wrong of ['0', '1.1', '90%', '1e-1', '.']) {
    expect(() => value(wrong)).toThrow(
      new OptionError(`--gpu-memory-utilization: expected a number above 0 and up to 1, got ${JSON.stringify(wrong)}`),
    )
  }
})

test('an option that is true or false has a flag for each', () => {
  const value = (given?: string) => readOptions({ enable_prefix_caching: given }, {}).enable_prefix_caching
  expect([value(), value('true'), value('1'), value('false'), value('0')]).toEqual([true, true, true, false, false])
  expect(optionHelp().flatMap(({ no }) => no ?? [])).toEqual([
    '--no-trust-request-chat-template',
    '--no-deterministic',
    '--no-enable-prefix-caching',
  ])
})

test('bytes as text', () => {
  const texts = [0, 1000, 1024, 10.5 * 1024, 99.94 * 2 ** 20, 310.2 * 2 ** 20, 1023.6 * 2 ** 20, 13747621888, 2 ** 60]
  expect(texts.map(memoryText)).toEqual([
    '0 B',
    '1000 B',
    '1.00 KiB',
    '10.5 KiB',
    '99.9 MiB',
    '310 MiB',
    '1.00 GiB',
    '12.8 GiB',
    '1048576 TiB',
  ])
})

test.each([
  ['enable_prefix_caching', 'yes', '--enable-prefix-caching: expected true or false, got "yes"'],
  ['port', '65536', '--port: expected an integer from 0 to 65535, got "65536"'],
  ['port', '-1', '--port: expected an integer from 0 to 65535, got "-1"'],
  ['port', '8e3', '--port: expected an integer from 0 to 65535, got "8e3"'],
  ['threads', '0', '--threads: expected an integer from 1 to 1024, got "0"'],
  ['dtype', 'int8', '--dtype: expected one of auto, float16, bfloat16, float32, got "int8"'],
  ['isa', '', '--isa: expected one of auto, baseline, neon, avx2, avx512, amx, got ""'],
  ['log_level', 'loud', '--log-level: expected one of debug, info, warn, error, got "loud"'],
  ['model', ' ', '--model: expected a text that is not empty, got " "'],
  ['api_key', '', '--api-key: expected a text that is not empty, got an empty text'],
  [
    'kv_cache_memory',
    '1.5',
    '--kv-cache-memory: expected bytes such as 536870912, 512MiB or 2GB, or a part of the free memory such as 0.5, got "1.5"',
  ],
  [
    'kv_cache_memory',
    '0',
    '--kv-cache-memory: expected bytes such as 536870912, 512MiB or 2GB, or a part of the free memory such as 0.5, got "0"',
  ],
  [
    'kv_cache_memory',
    '5 apples',
    '--kv-cache-memory: expected bytes such as 536870912, 512MiB or 2GB, or a part of the free memory such as 0.5, got "5 apples"',
  ],
])('--%s %s', (name, value, message) => {
  expect(() => readOptions({ [name]: value }, {})).toThrow(new OptionError(message))
})

test('a wrong variable is named as the variable it is', () => {
  expect(() => readOptions({}, { PARLEY_PORT: 'x' })).toThrow(/^PARLEY_PORT: expected an integer/)
})

test('help and the table of the README hold every option', () => {
  const names = Object.keys(serveOptions).map((name) => `--${name.replaceAll('_', '-')}`)
  expect(optionHelp().map(({ flags }) => flags.split(' ')[0])).toEqual(names)
  const rows = optionsMarkdown().split('\n').slice(2)
  expect(rows.map((row) => /`(--[\w-]+)`/.exec(row)?.[1])).toEqual(names)
  for (const row of rows) expect(row.split(/(?<!\\)\|/)).toHaveLength(6)
})

test('the README shows the table as it is', () => {
  expect(readFileSync(new URL('../README.md', import.meta.url), 'utf8')).toContain(optionsMarkdown())
})
