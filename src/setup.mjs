// Makes a fresh clone runnable: installs the locked packages, builds the addon and, where there is a GPU, the CUDA library, compiles the
// TypeScript. What is up to date is skipped, in a few milliseconds. Plain JavaScript with nothing but Node, for it runs before anything is
// installed.
import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildCuda, newest } from './setup-cuda.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const at = (...parts) => join(root, ...parts)
const say = (line) => process.stderr.write(`setup: ${line}\n`)

/** Runs a command quietly, calling onLine for each line it prints. On failure prints the end of its output and exits. */
async function run(what, command, args, onLine = () => {}) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  const lines = []
  let rest = ''
  const read = (chunk) => {
    const parts = (rest + chunk).split('\n')
    rest = parts.pop() ?? ''
    for (const line of parts) {
      lines.push(line)
      onLine(line)
    }
  }
  child.stdout.setEncoding('utf8').on('data', read)
  child.stderr.setEncoding('utf8').on('data', read)
  const code = await new Promise((resolve) => {
    child.on('error', (error) => {
      lines.push(String(error.message))
      resolve(1)
    })
    child.on('close', resolve)
  })
  if (code === 0) return
  process.stderr.write(`${[...lines, rest].slice(-40).join('\n')}\n`)
  say(`${what} failed (exit code ${code}); the end of its output stands above.`)
  process.exit(1)
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > 20 || (major === 20 && minor >= 19)) return
  say(`Parley needs Node 20.19 or newer; this is Node ${process.versions.node}.`)
  process.exit(1)
}

async function installPackages() {
  // npm writes this file last.
  if (newest([at('node_modules/.package-lock.json')]) >= newest([at('package-lock.json')])) return
  say('1/3 installing the locked packages (npm ci)')
  await run('npm ci', process.platform === 'win32' ? 'npm.cmd' : 'npm', [
    'ci',
    '--no-audit',
    '--no-fund',
    '--include=dev',
  ])
}

async function buildAddon() {
  const built = newest([at('build/Release/parley.node')])
  if (built > newest([at('native'), at('binding.gyp')])) return
  const gyp = at('node_modules/node-gyp/bin/node-gyp.js')
  // Node's headers stand beside most installations; node-gyp would download them otherwise.
  const prefix = dirname(dirname(process.execPath))
  const headers = existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : []
  if (newest([at('build/config.gypi')]) < newest([at('binding.gyp'), at('package-lock.json')])) {
    await run('configuring the addon (needs python3, make and a C++17 compiler)', process.execPath, [
      gyp,
      'configure',
      ...headers,
    ])
  }
  const targets = readdirSync(at('build')).filter((name) => name.endsWith('.target.mk'))
  const total = targets.flatMap(
    (name) => readFileSync(at('build', name), 'utf8').match(/\/native\/\S+\.o\b/g) ?? [],
  ).length
  say(`2/3 building the addon (${total} files, a minute or two the first time)`)
  let done = 0
  await run(
    'building the addon',
    process.execPath,
    [gyp, 'build', '-j', String(availableParallelism()), ...headers],
    (line) => {
      const file = /CXX\(target\) .*?(native\/\S+)\.o$/.exec(line)?.[1]
      if (file) say(`    ${++done}/${total} ${file}.cc`)
    },
  )
}

/**
 * What is loaded at a time becomes one file, packages included: Node finds and reads those of a server in 0.1 s, and in 0.35 s the 200
 * that they are made of.
 */
async function bundleTypeScript() {
  const stamp = at('dist/.compiled')
  if (newest([stamp]) > newest([at('src'), at('tsconfig.json'), at('package-lock.json')])) return
  say('3/3 compiling the TypeScript')
  const { build } = await import('rolldown')
  await build({
    cwd: root,
    input: {
      main: 'src/main.ts',
      // What else has a path of its own: threads, and what tests and benchmarks import into other processes.
      'generation/encode_thread': 'src/generation/encode_thread.ts',
      'generation/render_thread': 'src/generation/render_thread.ts',
      'engine/addon': 'src/engine/addon.ts',
      'models/load': 'src/models/load.ts',
    },
    platform: 'node',
    output: { dir: 'dist', cleanDir: true },
  })
  writeFileSync(stamp, '')
}

checkNode()
await installPackages()
await buildAddon()
await buildCuda(root, say).catch((error) => {
  say(error.message)
  process.exit(1)
})
await bundleTypeScript()
