// Damaged folders: every one is refused in one line that names a file of it, or holds exactly the same model, because the damage is
// where nothing is said. Never a crash, a hang or other numbers. The mutations are the same in every run.

import { cpSync, readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { loadModel, ModelError } from '../../src/models/load.js'
import { numbersOf } from './numbers.js'
import { editJson, fixture, torchFolder, weightKinds } from './scratch.js'

interface Mutation {
  what: string
  folder: () => string
  change: (folder: string) => void
}

const original: Record<string, string> = {}
beforeAll(async () => {
  original.parallel = numbersOf(await loadModel(fixture('neox-parallel')))
  original.sequential = numbersOf(await loadModel(fixture('neox-sequential')))
})

/** Whether the folder is refused; throws when it is neither refused as it should be nor the same model. */
async function outcome({ folder, change }: Omit<Mutation, 'what'>): Promise<'refused' | 'harmless'> {
  const path = folder()
  change(path)
  const result = await loadModel(path).catch((error: unknown) => error as Error)
  if (!(result instanceof Error)) {
    const model = folder === weightKinds['sharded safetensors'] ? 'sequential' : 'parallel'
    expect(numbersOf(result)).toBe(original[model])
    return 'harmless'
  }
  expect(result).toBeInstanceOf(ModelError)
  expect(result.message.startsWith(path)).toBe(true)
  expect(result.message).toMatch(/: .*expected .+/)
  expect(result.message).not.toContain('\n')
  return 'refused'
}

// --- damage to bytes ---

function flip(file: string, at: number, bit: number): (folder: string) => void {
  return (folder) => {
    const bytes = readFileSync(join(folder, file))
    bytes[at] = (bytes[at] as number) ^ (1 << bit)
    writeFileSync(join(folder, file), bytes)
  }
}

/** `count` single flipped bits, spread evenly over the bytes [start, end) of a file. */
function flips(folder: () => string, file: string, start: number, end: number, count: number): Mutation[] {
  return Array.from({ length: count }, (_, i) => {
    const at = start + Math.floor(((end - start) * i) / count)
    const bit = (i * 5 + 3) % 8
    return { what: `${file}: bit ${bit} of byte ${at} flipped`, folder, change: flip(file, at, bit) }
  })
}

/** A file cut at `count` places, at its start and end among them, and one that goes on. */
function cuts(folder: () => string, file: string, size: number, count: number): Mutation[] {
  const lengths = Array.from({ length: count }, (_, i) => Math.floor((size * i) / count))
  return [
    ...[...lengths, size - 1].map((length) => ({
      what: `${file}: cut to ${length} bytes`,
      folder,
      change: (path: string) => truncateSync(join(path, file), length),
    })),
    ...[1, 22, 4096].map((more) => ({
      what: `${file}: ${more} bytes more`,
      folder,
      change: (path: string) => truncateSync(join(path, file), size + more),
    })),
  ]
}

const bytesOf = (...path: string[]) => readFileSync(join(fixture('.'), ...path))
const safetensors = bytesOf('neox-parallel', 'model.safetensors')
const headerEnd = 8 + Number(safetensors.readBigUInt64LE())
const zip = bytesOf('torch', 'zip.bin')
const legacy = bytesOf('torch', 'legacy.bin')
const directory = zip.indexOf('PK\x01\x02')
const directoryEnd = zip.indexOf('PK\x06\x06')
const pickleStart = zip.indexOf('\x80\x02', 0, 'latin1')
const pickleEnd = zip.indexOf('PK\x07\x08')
const legacyPickles = legacy.indexOf('\x80\x02]', 0, 'latin1')
const shardIndex = 'model.safetensors.index.json'
const torchIndex = 'pytorch_model.bin.index.json'
const BIN = 'pytorch_model.bin'

/** A zip file that claims no checksum of its pickle, so that the damage reaches the unpickler. */
function uncheckedZip(): string {
  const folder = weightKinds['zip .bin']()
  const bytes = Buffer.from(zip)
  bytes.writeUInt32LE(0, directory + 16)
  writeFileSync(join(folder, BIN), bytes)
  return folder
}

/** Headers of the members, which lie between their bytes. */
function localHeaders(): Mutation[] {
  const found: Mutation[] = []
  for (let at = 0; at < directory; at = zip.indexOf('PK\x03\x04', at + 1)) {
    if (at < 0) break
    const field = [0, 4, 6, 8, 14, 18, 22, 26, 28, 30][found.length % 10] as number
    const mutation = { what: `${BIN}: byte ${field} of the member header at ${at}`, folder: weightKinds['zip .bin'] }
    found.push({ ...mutation, change: flip(BIN, at + field, found.length % 3) })
  }
  return found
}

const damage: Record<string, Mutation[]> = {
  'the header of a safetensors file': [
    ...flips(weightKinds.safetensors, 'model.safetensors', 0, 8, 8),
    ...flips(weightKinds.safetensors, 'model.safetensors', 8, headerEnd, 40),
    ...cuts(weightKinds.safetensors, 'model.safetensors', safetensors.length, 10),
  ],
  'the index of a sharded safetensors file': [
    ...flips(weightKinds['sharded safetensors'], shardIndex, 0, bytesOf('neox-sequential', shardIndex).length, 24),
    ...cuts(weightKinds['sharded safetensors'], shardIndex, bytesOf('neox-sequential', shardIndex).length, 6).slice(
      0,
      7,
    ),
  ],
  'the structure of a zip .bin': [
    ...flips(weightKinds['zip .bin'], BIN, directory, directoryEnd, 48),
    ...flips(weightKinds['zip .bin'], BIN, directoryEnd, zip.length, 40),
    ...localHeaders(),
    ...cuts(weightKinds['zip .bin'], BIN, zip.length, 12),
  ],
  'the pickle of a zip .bin': [
    ...flips(weightKinds['zip .bin'], BIN, pickleStart, pickleEnd, 6),
    ...flips(uncheckedZip, BIN, pickleStart, pickleEnd, 64),
  ],
  'a legacy .bin': [
    ...flips(weightKinds['legacy .bin'], BIN, 0, legacyPickles, 64),
    ...flips(weightKinds['legacy .bin'], BIN, legacyPickles, legacyPickles + 900, 24),
    ...cuts(weightKinds['legacy .bin'], BIN, legacy.length, 12),
  ],
  'the index of a sharded .bin': flips(
    weightKinds['sharded .bin'],
    torchIndex,
    0,
    bytesOf('torch', torchIndex).length,
    24,
  ),
}

describe.each(Object.entries(damage))('damage to %s is refused or harmless:', (_, mutations) => {
  const outcomes: string[] = []
  test.each(mutations)('$what', async ({ folder, change }) => {
    outcomes.push(await outcome({ folder, change }))
  })

  test('most of it is refused', () => {
    expect(outcomes).toHaveLength(mutations.length)
    expect(outcomes.filter((one) => one === 'refused').length).toBeGreaterThan(mutations.length / 2)
  })
})

// --- files that are missing, swapped or of another kind ---

function swap(a: string, b: string): (folder: string) => void {
  return (folder) => {
    renameSync(join(folder, a), join(folder, 'aside'))
    renameSync(join(folder, b), join(folder, a))
    renameSync(join(folder, 'aside'), join(folder, b))
  }
}

const shards = ['pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin'] as const
const safeShards = readdirSync(fixture('neox-sequential'))
  .filter((name) => name.startsWith('model-'))
  .toSorted()
const [first, second, third] = safeShards as [string, string, string]

const files: (Mutation & { expected: 'refused' | 'harmless' })[] = [
  ...[shards[0], shards[1], torchIndex].map((name) => ({ what: `no ${name}`, folder: weightKinds['sharded .bin'], change: (folder: string) => rmSync(join(folder, name)), expected: 'refused' as const })),
  ...[first, second, third, shardIndex].map((name) => ({ what: `no ${name}`, folder: weightKinds['sharded safetensors'], change: (folder: string) => rmSync(join(folder, name)), expected: 'refused' as const })),
  ...['config.json', 'tokenizer.json', 'model.safetensors'].map((name) => ({ what: `no ${name}`, folder: weightKinds.safetensors, change: (folder: string) => rmSync(join(folder, name)), expected: 'refused' as const })),
  { what: 'shards of .bin swapped', folder: weightKinds['sharded .bin'], change: swap(...shards), expected: 'refused' },
  { what: 'shards of safetensors swapped', folder: weightKinds['sharded safetensors'], change: swap(first, second), expected: 'refused' },
  { what: 'a shard twice', folder: weightKinds['sharded safetensors'], change: (folder) => cpSync(join(folder, first), join(folder, third)), expected: 'refused' },
  { what: 'a legacy shard in place of a zip one', folder: weightKinds['sharded .bin'], change: (folder) => cpSync(join(fixture('torch'), 'legacy.bin'), join(folder, shards[0])), expected: 'harmless' },
  { what: 'safetensors named .bin', folder: weightKinds.safetensors, change: (folder) => renameSync(join(folder, 'model.safetensors'), join(folder, BIN)), expected: 'refused' },
  { what: 'a zip .bin named safetensors', folder: weightKinds['zip .bin'], change: (folder) => renameSync(join(folder, BIN), join(folder, 'model.safetensors')), expected: 'refused' },
  { what: 'a legacy .bin named safetensors', folder: weightKinds['legacy .bin'], change: (folder) => renameSync(join(folder, BIN), join(folder, 'model.safetensors')), expected: 'refused' },
  { what: 'the weights of another model', folder: weightKinds.safetensors, change: (folder) => cpSync(join(fixture('neox-tied'), 'model.safetensors'), join(folder, 'model.safetensors')), expected: 'refused' },
  { what: 'the config of another model', folder: weightKinds['zip .bin'], change: (folder) => cpSync(join(fixture('neox-tied'), 'config.json'), join(folder, 'config.json')), expected: 'refused' },
  { what: 'odd tensors', folder: () => torchFolder({ 'odd-zip.bin': BIN }), change: () => {}, expected: 'refused' },
  { what: 'an HTML page as .bin', folder: weightKinds['zip .bin'], change: (folder) => writeFileSync(join(folder, BIN), '<!doctype html>'), expected: 'refused' },
  { what: 'a Git LFS pointer as .bin', folder: weightKinds['zip .bin'], change: (folder) => writeFileSync(join(folder, BIN), 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'), expected: 'refused' },
] // biome-ignore format: a table

test.each(files)('$what: $expected', async ({ folder, change, expected }) => {
  expect(await outcome({ folder, change })).toBe(expected)
})

// --- config.json ---

const numbers = [
  'vocab_size',
  'hidden_size',
  'num_hidden_layers',
  'num_attention_heads',
  'intermediate_size',
  'max_position_embeddings',
]
const wrongValues: unknown[] = [-1, 0, 1.5, 1e30, '32', [], {}, true]
const config: Mutation[] = [
  ...numbers.flatMap((key) => wrongValues.map((value) => ({ key, value }))),
  ...numbers.map((key) => ({ key, value: undefined })),
  ...['rotary_pct', 'rotary_emb_base', 'layer_norm_eps'].flatMap((key) => [-1, 1e300, 'x', []].map((value) => ({ key, value }))),
  ...['use_parallel_residual', 'tie_word_embeddings'].flatMap((key) => [0, 'true', []].map((value) => ({ key, value }))),
  ...['hidden_act', 'architectures'].flatMap((key) => [7, 'eval', ['eval'], {}].map((value) => ({ key, value }))),
  { key: 'hidden_size', value: 31 },
  { key: 'num_attention_heads', value: 3 },
  { key: 'vocab_size', value: 301 },
].map(({ key, value }) => ({
  what: `${key}: ${JSON.stringify(value) ?? 'left out'}`,
  folder: weightKinds.safetensors,
  change: (folder: string) => editJson(folder, 'config.json', (json) => Object.assign(json, { [key]: value })),
})) // biome-ignore format: a table

test.each(config)('config.json with $what is refused', async (mutation) => {
  expect(await outcome(mutation)).toBe('refused')
})

test('there are at least 200 damaged files', () => {
  expect(Object.values(damage).flat().length + files.length + config.length).toBeGreaterThanOrEqual(200)
})
