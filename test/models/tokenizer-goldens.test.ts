import { createHash } from 'node:crypto'
import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { Detokenizer } from '../../src/generation/detokenizer.js'
import { loadTokenizer, type Tokenizer } from '../../src/models/tokenizer.js'
import { emptyFolder } from './scratch.js'

interface Golden {
  files: Record<string, string>
  config: Record<string, unknown>
  long: [length: number, digest: string][]
  rows: { special: number[]; plain: number[]; decoded?: string }[]
}

const goldens = fileURLToPath(new URL('goldens/tokenizers', import.meta.url))
const fixtures = fileURLToPath(new URL('../fixtures/tokenizers', import.meta.url))
const real = process.env.TOKENIZERS ?? fileURLToPath(new URL('../../../shared/data/tokenizers', import.meta.url))
const read = (path: string) => JSON.parse(readFileSync(join(goldens, path), 'utf8'))
const { texts, long } = read('texts.json') as { texts: string[]; long: [string, number][] }

function digest(ids: number[]): string {
  const bytes = Buffer.alloc(4 * ids.length)
  ids.forEach((id, index) => {
    bytes.writeInt32LE(id, 4 * index)
  })
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}

/** The text of ids, token by token, as a completion that starts a text. */
function decode(tokenizer: Tokenizer, ids: number[]): string {
  const detokenizer = new Detokenizer(tokenizer, [])
  const shown = ids.filter((id) => !tokenizer.isSpecial(id))
  return [...shown.map((id) => detokenizer.push(id)), detokenizer.end()].join('')
}

function check(golden: Golden, tokenizer: Tokenizer): void {
  for (const [index, row] of golden.rows.entries()) {
    const text = texts[index] as string
    const shown = JSON.stringify(text)
    expect([shown, tokenizer.encode(text, { allowSpecial: true })]).toEqual([shown, row.special])
    expect([shown, tokenizer.encode(text, { addSpecialTokens: false })]).toEqual([shown, row.plain])
    expect([shown, decode(tokenizer, row.special)]).toEqual([shown, row.decoded ?? text.toWellFormed()])
  }
  for (const [index, [length, hash]] of golden.long.entries()) {
    const [part, times] = long[index] as [string, number]
    const ids = tokenizer.encode(part.repeat(times), { addSpecialTokens: false })
    expect([part, ids.length, digest(ids)]).toEqual([part, length, hash])
  }
}

describe('ids and texts are those of Hugging Face, for small tokenizers of each kind', () => {
  for (const name of readdirSync(fixtures)) {
    test(name, async () => check(read(`${name}.json`), await loadTokenizer(join(fixtures, name))))
  }
})

describe('ids and texts are those of Hugging Face, for real tokenizers (skipped where ../shared/data is not beside the repository)', () => {
  for (const file of readdirSync(join(goldens, 'real'))) {
    const golden: Golden = read(`real/${file}`)
    const sources = Object.entries(golden.files)
    test.skipIf(!sources.every(([, source]) => existsSync(join(real, source))))(file, async () => {
      const folder = emptyFolder()
      for (const [target, source] of sources) cpSync(join(real, source), join(folder, target))
      writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(golden.config))
      check(golden, await loadTokenizer(folder))
    })
  }
})
