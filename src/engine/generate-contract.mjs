// Makes contract.ts from native/contract.def: `npm run contract`. With --check it only compares.
import { readFileSync, writeFileSync } from 'node:fs'

const definition = new URL('../../native/contract.def', import.meta.url)
const output = new URL('./contract.ts', import.meta.url)

/** @param {string} source text of contract.def @returns {string} the TypeScript */
export function generateContract(source) {
  const text = source.replace(/^\s*\/\/.*$/gm, '')
  const lines = ['// Generated from native/contract.def by `npm run contract`. Do not edit.', '']
  const calls = text.matchAll(/([A-Z]+)\(((?:"(?:[^"\\]|\\.)*"|[^")])*)\)/g)
  const types = {
    INT: 'number',
    REAL: 'number',
    FLAG: 'boolean',
    COUNT: 'number',
    INTS: 'Int32Array',
    REALS: 'Float32Array',
  }
  for (const [, kind, body] of calls) {
    const parts = [...body.matchAll(/\s*("(?:[^"\\]|\\.)*"|[^,"]+?)\s*(?:,|$)/g)].map(([, part]) => part)
    const meaning = parts.at(-1).replace(/^"|"$/g, '')
    if (kind === 'ENUM') {
      const values = parts.slice(1).map((value) => `'${value.replace(/_$/, '')}'`)
      lines.push(`export const ${parts[0]}Values = [${values.join(', ')}] as const`)
      lines.push(`export type ${parts[0]} = (typeof ${parts[0]}Values)[number]`, '')
    } else if (kind === 'STRUCT') {
      lines.push(`/** ${meaning} */`, `export interface ${parts[0]} {`)
    } else if (kind === 'END') {
      lines.push('}', '')
    } else if (kind === 'CHOICE') {
      lines.push(`  /** ${meaning}; default ${parts[2].replace(/_$/, '')} */`, `  ${parts[1]}: ${parts[0]}`)
    } else {
      const range = {
        INT: parts.slice(2, 4),
        REAL: parts.slice(2, 4),
        INTS: parts.slice(1, 3),
        REALS: parts.slice(1, 3),
      }[kind]
      const fallback = kind === 'INT' || kind === 'REAL' || kind === 'FLAG' ? parts[1] : undefined
      const required = range !== undefined && fallback !== undefined && Number(fallback) < Number(range[0])
      const notes = [
        range && `${range[0]} to ${range[1]}`,
        required ? 'required' : fallback !== undefined && `default ${fallback}`,
      ].filter(Boolean)
      lines.push(`  /** ${meaning}${notes.length ? ` (${notes.join(', ')})` : ''} */`, `  ${parts[0]}: ${types[kind]}`)
    }
  }
  return `${lines.join('\n').trimEnd()}\n`
}

if (process.argv[1] === new URL(import.meta.url).pathname) {
  const generated = generateContract(readFileSync(definition, 'utf8'))
  if (process.argv.includes('--check')) {
    if (readFileSync(output, 'utf8') !== generated) {
      console.error('src/engine/contract.ts is out of date: run npm run contract')
      process.exit(1)
    }
  } else {
    writeFileSync(output, generated)
  }
}
