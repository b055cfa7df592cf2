// The part of set-up that builds the CUDA library, where there are nvcc and a GPU. Plain JavaScript with nothing but Node.
import { spawn, spawnSync } from 'node:child_process'
import {
  createWriteStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import { delimiter, join } from 'node:path'

/**
 * Builds build/Release/parley_cuda.so for the GPUs of this machine, or for the compute capabilities that PARLEY_CUDA_ARCHS names ("80 90"),
 * unless PARLEY_CUDA_LIBRARY names another one, or it is there already: built from these sources with this nvcc. What failed once is not tried again before something has changed.
 * A failure is said and stops nothing: a server can start on the CPU.
 * @param root the repository
 * @param say tells the person at the terminal a line
 * @param drivers files of which one is there where NVIDIA's driver is: Linux's, and WSL's
 * @throws Error for PARLEY_CUDA_ARCHS that name no compute capabilities
 */
export async function buildCuda(root, say, env = process.env, drivers = ['/dev/nvidiactl', '/dev/dxg']) {
  if (env.PARLEY_CUDA_LIBRARY) return
  const asked = (env.PARLEY_CUDA_ARCHS ?? '').split(/[\s,]+/).filter((arch) => arch !== '')
  const wrong = asked.find((arch) => !/^[89]\d$|^\d{3}$/.test(arch))
  if (wrong !== undefined)
    throw new Error(`PARLEY_CUDA_ARCHS: expected compute capabilities from 80 on, such as "80 90", got "${wrong}"`)
  if (asked.length === 0 && !drivers.some((path) => existsSync(path))) return
  const nvcc = findNvcc(env)
  if (nvcc === null) return
  const sources = ['native/base', 'native/ops', 'native/cuda', 'native/contract.def', 'native/contract.h']
  const out = join(root, 'build/Release')
  const library = join(out, 'parley_cuda.so')
  const key = JSON.stringify([asked, nvcc, newest([nvcc, ...sources.map((path) => join(root, path))])])
  const stamp = join(root, 'build/cuda.json')
  const last = existsSync(stamp) ? JSON.parse(readFileSync(stamp, 'utf8')) : { key: '', archs: [], failed: false }
  const log = join(root, 'build/cuda.log')
  const failure = `the CUDA library could not be built: the server runs on the CPU. ${log} says why.`
  if (last.key === key && last.failed) return say(failure)
  if (last.key === key && existsSync(library)) return
  const archs = asked.length > 0 ? asked : archsOfGpus(env)
  if (archs.length === 0) return // nvidia-smi knows none that the kernels run on; the server says what it finds
  mkdirSync(out, { recursive: true })
  // make knows what of the sources has changed, but not for which GPUs it has compiled.
  if (String(last.archs) !== String(archs)) rmSync(join(out, 'cuda'), { recursive: true, force: true })
  rmSync(library, { force: true })
  const total = readdirSync(join(root, 'native/cuda')).filter((name) => /\.(cu|cc)$/.test(name)).length
  say(
    `building the CUDA library for compute capability ${archs.join(', ')} (${total} files, a minute or more each time)`,
  )
  const variables = [`NVCC=${nvcc}`, `ARCHS=${archs.join(' ')}`, `OUT=${out}`]
  const make = ['-C', join(root, 'native/cuda'), `-j${availableParallelism()}`, ...variables]
  const failed = !(await logged('make', make, env, log, /-c (\S+\.(?:cu|cc)) /, (file, count) =>
    say(`    ${count} ${file}`),
  ))
  writeFileSync(stamp, JSON.stringify({ key, archs, failed }))
  if (failed) say(failure)
}

/** What NVCC names, the nvcc on PATH, or the one in CUDA's usual folder; null if there is none. */
function findNvcc({ NVCC, PATH = '' }) {
  const places = [...PATH.split(delimiter).map((folder) => join(folder, 'nvcc')), '/usr/local/cuda/bin/nvcc']
  return NVCC || (places.find((place) => existsSync(place)) ?? null)
}

/** Compute capabilities of this machine's GPUs, such as '90', each once; what is older than 8.0 is left out. */
function archsOfGpus(env) {
  const query = ['--query-gpu=compute_cap', '--format=csv,noheader']
  const { status, stdout } = spawnSync('nvidia-smi', query, { env, encoding: 'utf8', timeout: 20_000 })
  if (status !== 0) return []
  const archs = [...stdout.matchAll(/^(\d+)\.(\d)\s*$/gm)].map(([, major, minor]) => Number(major + minor))
  return [...new Set(archs)]
    .filter((arch) => arch >= 80)
    .sort((a, b) => a - b)
    .map(String)
}

/** Milliseconds since 1970 of the newest file among `paths`, folders searched through; 0 if none exists. */
export function newest(paths) {
  let latest = 0
  for (const path of paths) {
    const status = statSync(path, { throwIfNoEntry: false })
    if (!status) continue
    latest = Math.max(
      latest,
      status.isDirectory() ? newest(readdirSync(path).map((name) => join(path, name))) : status.mtimeMs,
    )
  }
  return latest
}

/** Runs a command, its output going to a file. @returns whether it ended well */
async function logged(command, args, env, file, pattern, onMatch) {
  const log = createWriteStream(file)
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  let count = 0
  let rest = ''
  const read = (chunk) => {
    log.write(chunk)
    const lines = (rest + chunk).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const match = pattern.exec(line)
      if (match) onMatch(match[1], ++count)
    }
  }
  child.stdout.setEncoding('utf8').on('data', read)
  child.stderr.setEncoding('utf8').on('data', (chunk) => log.write(chunk))
  const code = await new Promise((resolve) => {
    child.on('error', (error) => {
      log.write(`${error.message}\n`)
      resolve(1)
    })
    child.on('close', resolve)
  })
  await new Promise((resolve) => log.end(resolve))
  return code === 0
}
