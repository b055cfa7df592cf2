// Who may import whom, read from the sources. The plan of the house is in CONTRIBUTING.md.

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, posix, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'

const root = fileURLToPath(new URL('..', import.meta.url))

/** Path from the repository's root → text. */
type Sources = Record<string, string>

function read(folder: string, pattern: RegExp): Sources {
  const entries = readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
  const files = entries.filter((entry) => entry.isFile() && pattern.test(entry.name))
  return Object.fromEntries(
    files.map(({ parentPath, name }) => {
      const path = join(parentPath, name)
      return [relative(root, path).replaceAll('\\', '/'), readFileSync(path, 'utf8')]
    }),
  )
}

// ---- TypeScript: main → http → generation → models → engine; each may use what stands to its right.

const chain = ['main', 'http', 'generation', 'models', 'engine']
/** Serve all and use no room; they may use each other. */
const servants = ['errors', 'metrics', 'log', 'config']

/** Libraries that belong to one room. */
const libraries: Record<string, string[]> = {
  hono: ['http'],
  '@hono/node-server': ['http'],
  ws: ['http'],
  zod: ['http'],
  '@fastify/busboy': ['http'],
  'prom-client': ['metrics'],
  commander: ['main'],
  rolldown: ['main'],
}

/** src/http/chat.ts → http; src/log.ts → log; every other file beside them wires the rooms. */
function roomOf(path: string): string {
  const [, first = '', second] = path.split('/')
  if (second !== undefined) return first
  const name = first.replace(/\.\w+$/, '')
  return servants.includes(name) ? name : 'main'
}

function typescriptViolations(sources: Sources): string[] {
  const found: string[] = []
  for (const [path, text] of Object.entries(sources)) {
    const from = roomOf(path)
    const code = text.replace(/^\s*(?:\/\/|\*).*$/gm, '')
    // Type imports count too: a room that needs another's types cannot be understood without it.
    for (const [, target = ''] of code.matchAll(
      /(?:\bfrom|\bimport|\bimport\s*\(|\brequire\s*\(|\bnew URL\()\s*['"]([^'"]+)['"]/g,
    )) {
      if (target.startsWith('.')) {
        const to = posix.join(dirname(path), target)
        if (!to.startsWith('src/')) continue // files of the package, such as the addon; see below
        const room = roomOf(to)
        const allowed =
          room === from ||
          (servants.includes(room) && (servants.includes(from) || chain.includes(from))) ||
          (chain.includes(from) && chain.includes(room) && chain.indexOf(from) < chain.indexOf(room))
        if (!allowed) found.push(`${path} (${from}) uses ${to} (${room})`)
      } else if (target.startsWith('node:') === false && target !== '.') {
        const name = target
          .split('/')
          .slice(0, target.startsWith('@') ? 2 : 1)
          .join('/')
        const rooms = libraries[name] ?? []
        if (!rooms.includes(from)) found.push(`${path} (${from}) uses the library ${name}`)
      }
    }
    if (
      /(?:require|import|createRequire\([^)]*\))\s*\(\s*['"](?:#addon|[^'"]*\.node)['"]/.test(code) &&
      from !== 'engine'
    )
      found.push(`${path} (${from}) loads native code`)
  }
  return found
}

// ---- C++: binding → engine → model → ops ← cpu, cuda; base serves all.

const nativeUses: Record<string, string[]> = {
  binding: ['engine', 'model', 'ops', 'base'],
  engine: ['model', 'ops', 'base'],
  model: ['ops', 'base'],
  cpu: ['ops', 'base'],
  cuda: ['ops', 'base'],
  ops: ['base'],
  base: [],
}

/** A device's doors: headers without a kernel in them, for those who choose the device. */
const doors: Record<string, string[]> = {
  'cpu/cpu_backend.h': ['binding', 'model'],
  'cpu/calibrate.h': ['binding'],
  'cuda/cuda_library.h': ['binding', 'model'],
}

function nativeViolations(sources: Sources): string[] {
  const found: string[] = []
  for (const [path, text] of Object.entries(sources)) {
    const [, from = ''] = path.split('/')
    if (path.split('/').length < 3) continue // contract.h, which belongs to all
    if (nativeUses[from] === undefined) found.push(`${path}: the folder ${from} has no place in the plan`)
    for (const [, quote, target = ''] of text.matchAll(/^\s*#\s*include\s*([<"])([^>"]+)[>"]/gm)) {
      if (/^(napi|node_api|js_native_api|node|v8|uv)\b.*\.h$/.test(target)) {
        if (from !== 'binding') found.push(`${path} uses ${target}`)
      } else if (
        /^(cuda|cublas|cuda_\w+|nccl|curand|cutlass|cub|mma\.h)/.test(posix.basename(target)) &&
        from !== 'cuda' &&
        !doors[target]?.includes(from)
      ) {
        found.push(`${path} uses ${target}`)
      } else if (quote === '"') {
        if (target === 'contract.h' || target === 'contract.def') continue
        const to = target.includes('/') ? (target.split('/')[0] ?? '') : from
        const allowed = to === from || nativeUses[from]?.includes(to) || doors[target]?.includes(from)
        if (!allowed) found.push(`${path} uses ${target}`)
      }
    }
    if (/\b(json|nlohmann|rapidjson)\b/i.test(text.replace(/\/\/.*$/gm, '')) && from !== 'binding')
      found.push(`${path} speaks JSON`)
  }
  return found
}

test('src: each room uses only rooms to its right, and only its own libraries', () => {
  const sources = read('src', /\.(ts|mjs)$/)
  expect(Object.keys(sources)).toContain('src/http/server.ts')
  expect(typescriptViolations(sources)).toEqual([])
})

test('native: each room uses only rooms below it, and only its own headers', () => {
  const sources = read('native', /\.(h|cc|cu|cuh|def)$/)
  expect(Object.keys(sources).length).toBeGreaterThan(10)
  expect(nativeViolations(sources)).toEqual([])
})

test('the readers of imports see what they should', () => {
  const typescript: [path: string, text: string, violations: number][] = [
    [
      'src/main.ts',
      "import { a } from './http/a.js'\nawait import('./engine/addon.js')\nimport { Command } from 'commander'",
      0,
    ],
    [
      'src/http/a.ts',
      "import { x } from '../generation/x.js'\nimport { y } from '../errors.js'\nimport { z } from 'zod'",
      0,
    ],
    ['src/generation/a.ts', "import type { C } from '../http/context.js'", 1],
    ['src/generation/a.ts', "import {\n  b,\n} from '../main.js'", 1],
    ['src/engine/a.ts', "export * from '../models/model.js'", 1],
    ['src/models/a.ts', "const m = await import('../generation/x.js')", 1],
    ['src/models/a.ts', "new Worker(new URL('../http/worker.js', import.meta.url))", 1],
    ['src/log.ts', "import { E } from './engine/engine.js'", 1],
    ['src/metrics.ts', "import './errors.js'\nimport { Registry } from 'prom-client'", 0],
    ['src/generation/a.ts', "import { Hono } from 'hono'", 1],
    ['src/http/a.ts', "import x from 'left-pad'", 1],
    ['src/http/a.ts', "createRequire(import.meta.url)('../../build/Release/parley.node')", 1],
    ['src/http/a.ts', "createRequire(import.meta.url)('#addon')", 1],
    ['src/engine/a.ts', "// import { x } from '../http/x.js'\nimport { readFileSync } from 'node:fs'", 0],
  ]
  for (const [path, text, violations] of typescript)
    expect([text, typescriptViolations({ [path]: text }).length]).toEqual([text, violations])
  const native: [path: string, text: string, violations: number][] = [
    [
      'native/binding/a.cc',
      '#include <napi.h>\n#include "engine/engine.h"\n#include "contract.h"\n#include <vector>',
      0,
    ],
    ['native/engine/a.cc', '#include <napi.h>', 1],
    ['native/engine/a.cc', '#include "cpu/linear.h"', 1],
    ['native/cpu/a.cc', '#include "cuda/linear.h"', 1],
    ['native/cuda/a.cu', '#include "cpu/linear.h"\n#include <cuda_runtime.h>', 1],
    ['native/cpu/a.cc', '#  include <cuda_fp16.h>', 1],
    ['native/base/a.h', '#include <sys/mman.h>', 0],
    ['native/cpu/a.cc', '#include <mma.h>', 1],
    ['native/ops/a.h', '#include "model/step.h"', 1],
    ['native/base/a.h', '#include "ops/types.h"', 1],
    ['native/model/a.cc', '#include "ops/backend.h"\n#include "base/check.h"\n#include "cpu/cpu_backend.h"', 0],
    ['native/engine/a.cc', '#include "cpu/cpu_backend.h"', 1],
    ['native/strange/a.cc', '#include <vector>', 1],
  ]
  for (const [path, text, violations] of native)
    expect([text, nativeViolations({ [path]: text }).length]).toEqual([text, violations])
})
