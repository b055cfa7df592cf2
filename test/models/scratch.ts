// Copies of the tiny checkpoints that a test may break.

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'

export type Json = Record<string, unknown>

/** A committed tiny checkpoint, by its folder's name. */
export function fixture(name: string): string {
  return fileURLToPath(new URL(`../fixtures/${name}`, import.meta.url))
}

/** A copy of a tiny checkpoint, gone when the test ends. */
export function copyOf(name: string): string {
  const folder = emptyFolder()
  cpSync(fixture(name), folder, { recursive: true })
  return folder
}

export function emptyFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'parley-models-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Rewrites a JSON file of a copy. */
export function editJson(folder: string, name: string, change: (json: Json) => void): void {
  const file = join(folder, name)
  const json = JSON.parse(readFileSync(file, 'utf8'))
  change(json)
  writeFileSync(file, JSON.stringify(json))
}

/** Rewrites the header of a copy's safetensors file and leaves its data alone. */
export function editHeader(folder: string, change: (header: Json) => void, name = 'model.safetensors'): void {
  const file = join(folder, name)
  const bytes = readFileSync(file)
  const end = 8 + Number(bytes.readBigUInt64LE())
  const header = JSON.parse(bytes.toString('utf8', 8, end))
  change(header)
  writeFileSync(file, safetensors(JSON.stringify(header), bytes.subarray(end)))
}

/** The bytes of a safetensors file with any header text. */
export function safetensors(header: string, data: Uint8Array): Buffer {
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(Buffer.byteLength(header)))
  return Buffer.concat([length, Buffer.from(header), data])
}

/** The kinds of weight files, by name: each makes a folder of the model neox-parallel. */
export const weightKinds = {
  safetensors: () => copyOf('neox-parallel'),
  'sharded safetensors': () => copyOf('neox-sequential'),
  'zip .bin': () => torchFolder({ 'zip.bin': 'pytorch_model.bin' }),
  'legacy .bin': () => torchFolder({ 'legacy.bin': 'pytorch_model.bin' }),
  'sharded .bin': () => torchFolder(),
}

const SHARDED = ['pytorch_model.bin.index.json', 'pytorch_model-00001-of-00002.bin', 'pytorch_model-00002-of-00002.bin']

/** The model neox-parallel with files of test/fixtures/torch as its weights, named as the values say. */
export function torchFolder(
  files: Record<string, string> = Object.fromEntries(SHARDED.map((name) => [name, name])),
): string {
  const folder = copyOf('neox-parallel')
  rmSync(join(folder, 'model.safetensors'))
  for (const [from, to] of Object.entries(files)) cpSync(join(fixture('torch'), from), join(folder, to))
  return folder
}
