// Random damage, several places at a time: a folder is refused in one line that names its file, or it loads and the engine computes
// with it. Never another error, a crash or a hang. PARLEY_TEST_SEED tries other damage than each run does.

import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { forwardLogits, type ModelSource } from '../../src/engine/addon.js'
import { loadModel, ModelError } from '../../src/models/load.js'
import { Random } from '../ops/addon.js'
import { emptyFolder, fixture, type Json } from './scratch.js'
import { loadUntokenized } from './untokenized.js'

const seed = Number(process.env.PARLEY_TEST_SEED ?? 1)
const options = {
  dtype: 'float32',
  num_threads: 1,
  max_model_len: 16,
  kv_cache_bytes: 1 << 20,
  guard_memory: true,
} as const

/** Files of a model by their names: bytes, or a path to link to. */
type Files = Record<string, Buffer | string>

/** Loads a folder of these files and computes with it. @returns whether it is refused, as it should be */
async function isRefused(
  folder: string,
  files: Files,
  load: (folder: string) => Promise<ModelSource>,
): Promise<boolean> {
  rmSync(folder, { recursive: true })
  mkdirSync(folder)
  for (const [name, content] of Object.entries(files)) {
    if (typeof content === 'string') symlinkSync(content, join(folder, name))
    else writeFileSync(join(folder, name), content)
  }
  const model = await load(folder).catch((error: unknown) => error as Error)
  if (!(model instanceof Error)) {
    const prompt = model.spec.num_encoder_layers > 0 ? [Int32Array.of(1, 2)] : []
    const length = Math.min(3, model.spec.max_position)
    const logits = forwardLogits(model, options, Int32Array.of(1, 0, 1).subarray(0, length), ...prompt)
    expect(logits).toHaveLength(length * model.spec.vocab_size)
    return false
  }
  if (!(model instanceof ModelError)) throw model
  expect(model.message.startsWith(`${folder}/`)).toBe(true)
  expect(model.message).toMatch(/: .*expected [^\n]+$/)
  return true
}

function pick<T>(random: Random, list: readonly T[]): T {
  return list[random.below(list.length)] as T
}

// --- config.json of every family ---

const families = [
  ...readdirSync(fixture('families')).map((name) => join('families', name)),
  ...['t5-v1.0', 't5-v1.1', 'mt5'],
].map(fixture)

const values = [-1, 0, 1, 2, 3, 5, 7, 31, 64, 1e6, 2 ** 31, 2 ** 53, 1e30, 1e-30, 0.5, '32', '', [], [0], {}, true, false, null, 'gelu', 'sliding_attention', ['full_attention'], [[['global'], 2]], { rope_type: 'yarn', factor: 4 }, { type: 'linear', factor: 2 }] // biome-ignore format: a list

const otherKeys = ['architectures', 'model_type', 'head_dim', 'num_key_value_heads', 'sliding_window', 'layer_types', 'rope_scaling', 'rope_theta', 'partial_rotary_factor', 'num_experts', 'tie_word_embeddings'] // biome-ignore format: a list

test('a config.json with random values is refused, or the engine computes with it', async () => {
  const random = new Random(seed)
  const folder = emptyFolder()
  let refused = 0
  for (let trial = 0; trial < 120; trial++) {
    const from = pick(random, families)
    const json: Json = JSON.parse(readFileSync(join(from, 'config.json'), 'utf8'))
    const target = random.below(2) === 0 ? ((json.text_config as Json | undefined) ?? json) : json
    const changes: Json = {}
    for (let count = 1 + random.below(2); count > 0; count--)
      changes[pick(random, random.below(3) === 0 ? otherKeys : Object.keys(target))] = pick(random, values)
    Object.assign(target, changes)
    const files: Files = { 'model.safetensors': join(from, 'model.safetensors') }
    files['config.json'] = Buffer.from(JSON.stringify(json))
    try {
      if (await isRefused(folder, files, loadUntokenized)) refused++
    } catch (error) {
      throw new Error(`trial ${trial} of seed ${seed}: ${from} with ${JSON.stringify(changes)}`, { cause: error })
    }
  }
  expect(refused).toBeGreaterThan(30)
})

// --- what files of weights say of themselves ---

/** Where a file's bytes are not the numbers of tensors. */
function regions(bytes: Buffer): [start: number, end: number][] {
  const find = (mark: string, from = 0) => bytes.indexOf(mark, from, 'latin1')
  if (bytes[0] === 0x50) {
    const [pickle, directory] = [find('\x80\x02'), find('PK\x01\x02')]
    return [[pickle, find('PK\x07\x08')], [directory, find('PK\x06\x06')], [find('PK\x06\x06'), bytes.length]] // biome-ignore format: short
  }
  const legacy = find('\x80\x02]')
  return legacy > 0 ? [[0, legacy], [legacy, legacy + 900]] : [[0, 8], [8, 8 + Number(bytes.readBigUInt64LE())]] // biome-ignore format: short
}

/** One to three edits inside of one region: bits, bytes, digits, counts, what is left out or doubled, cuts. */
function damaged(original: Buffer, random: Random): Buffer {
  let bytes = Buffer.from(original)
  const [start, end] = pick(random, regions(original))
  if (original[0] === 0x50) bytes.writeUInt32LE(0, bytes.indexOf('PK\x01\x02') + 16) // no checksum that sees the damage first
  for (let count = 1 + random.below(3); count > 0; count--) {
    const at = Math.min(start + random.below(end - start), bytes.length - 9)
    const length = 1 + random.below(8)
    const edits: (() => void)[] = [
      () => bytes.writeUInt8((bytes[at] as number) ^ (1 << random.below(8)), at),
      () => bytes.writeUInt8(random.below(256), at),
      () => {
        const digit = bytes.subarray(at).findIndex((byte) => byte >= 0x30 && byte <= 0x39)
        if (digit >= 0) bytes.writeUInt8(0x30 + random.below(10), at + digit)
      },
      () => bytes.writeUInt32LE(pick(random, [0, 1, 0x7fffffff, 0xffffffff, bytes.length]), at),
      () => bytes.writeBigUInt64LE(pick(random, [0n, 2n ** 63n, 2n ** 64n - 1n, BigInt(bytes.length)]), at),
      () => {
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])
      },
      () => {
        bytes = Buffer.concat([bytes.subarray(0, at + length), bytes.subarray(at)])
      },
      () => {
        bytes = bytes.subarray(0, bytes.length - random.below(64))
      },
    ]
    pick(random, edits)()
  }
  return bytes
}

test.each([
  ['safetensors', 'neox-parallel/model.safetensors', 'model.safetensors'],
  ['zip .bin', 'torch/zip.bin', 'pytorch_model.bin'],
  ['legacy .bin', 'torch/legacy.bin', 'pytorch_model.bin'],
])('%s with random damage to its structure is refused, or the engine computes with it', async (_, file, name) => {
  const random = new Random(seed)
  const folder = emptyFolder()
  const original = readFileSync(fixture(file))
  const others = ['config.json', 'tokenizer.json', 'tokenizer_config.json'].map((other) => [
    other,
    join(fixture('neox-parallel'), other),
  ])
  let refused = 0
  for (let trial = 0; trial < 80; trial++) {
    const files: Files = { ...Object.fromEntries(others), [name]: damaged(original, random) }
    try {
      if (await isRefused(folder, files, loadModel)) refused++
    } catch (error) {
      throw new Error(`trial ${trial} of seed ${seed}`, { cause: error })
    }
  }
  expect(refused).toBeGreaterThan(40)
})
