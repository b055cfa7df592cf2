// What the machine offers: memory that this process may still take, processors, GPUs.

import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, totalmem } from 'node:os'
import { dirname, join } from 'node:path'

/** Memory that can be taken, and what bounds it. */
export interface FreeMemory {
  bytes: number
  /** completes "12 GiB free" */
  bound: 'on this machine' | "within the container's limit" | "within the process's limit (ulimit)"
}

export interface Gpu {
  name: string
  bytes: number
}

/** The text of a file, or null where there is none. */
type Read = (path: string) => string | null

/**
 * Memory that this process can take without pushing anything out: the least of what the machine has, what each control group around
 * the process allows, and what the process's own limits allow. What the system caches of files counts as free, for it gives way; Node's
 * process.availableMemory() counts a control group's caches as taken, so that in a container a model that has just been downloaded
 * would leave no room for itself.
 */
export function freeMemory(read: Read = readText): FreeMemory {
  const found: FreeMemory[] = [{ bytes: machineBytes(read), bound: 'on this machine' }]
  for (const bytes of groupBytes(read)) found.push({ bytes, bound: "within the container's limit" })
  for (const bytes of limitBytes(read)) found.push({ bytes, bound: "within the process's limit (ulimit)" })
  const least = found.reduce((a, b) => (b.bytes < a.bytes ? b : a))
  return { ...least, bytes: Math.max(0, least.bytes) }
}

function machineBytes(read: Read): number {
  const kilobytes = number(/^MemAvailable:\s+(\d+) kB/m, read('/proc/meminfo'))
  // macOS has no such figure; what it calls free leaves out all that gives way.
  return kilobytes === null ? Math.floor(0.75 * totalmem()) : kilobytes * 1024
}

/** What is left in the control group of this process and in those around it. */
function* groupBytes(read: Read): Generator<number> {
  for (const { folder, version } of groupsAround('memory', read)) {
    const [limit, usage, cache] =
      version === 2
        ? (['memory.max', 'memory.current', /^(?:active|inactive)_file (\d+)$/gm] as const)
        : (['memory.limit_in_bytes', 'memory.usage_in_bytes', /^total_(?:active|inactive)_file (\d+)$/gm] as const)
    const most = number(/^(\d+)\s*$/, read(join(folder, limit)))
    if (most === null) continue
    const used = number(/^(\d+)\s*$/, read(join(folder, usage))) ?? 0
    let cached = 0
    for (const [, bytes] of (read(join(folder, 'memory.stat')) ?? '').matchAll(cache)) cached += Number(bytes)
    yield most - Math.max(0, used - cached)
  }
}

/** Folders of the control group of this process and of those around it that a controller has, version 2 and version 1. */
function* groupsAround(controller: 'memory' | 'cpu', read: Read): Generator<{ folder: string; version: 1 | 2 }> {
  const groups = read('/proc/self/cgroup') ?? ''
  const older = new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(.*)$`, 'm')
  for (const [path, root, version] of [
    [/^0::(.*)$/m.exec(groups)?.[1], '/sys/fs/cgroup', 2],
    [older.exec(groups)?.[1], `/sys/fs/cgroup/${controller}`, 1],
  ] as const) {
    if (path === undefined) continue
    // In a container the path may be the host's, of which only the root is to be seen here.
    for (let group = join('/', path); ; group = dirname(group)) {
      yield { folder: join(root, group), version }
      if (group === '/') break
    }
  }
}

/**
 * Processors that this process can keep busy: those that it may run on, or fewer where a control group around it allows it less time
 * than they have (docker's --cpus, a limit of Kubernetes), rounded up to whole ones.
 */
export function availableCores(read: Read = readText, cores = availableParallelism()): number {
  let least = cores
  for (const { folder, version } of groupsAround('cpu', read)) {
    const [quota, period] =
      version === 2
        ? (read(join(folder, 'cpu.max')) ?? '').split(/\s+/)
        : [read(join(folder, 'cpu.cfs_quota_us')), read(join(folder, 'cpu.cfs_period_us'))]
    const share = Number(quota) / Number(period) // no number where there is no limit: "max", -1, no file
    if (share > 0) least = Math.min(least, Math.ceil(share))
  }
  return least
}

/** What is left of the process's own limits (ulimit -v and -d). */
function* limitBytes(read: Read): Generator<number> {
  const limits = read('/proc/self/limits') ?? ''
  const status = read('/proc/self/status') ?? ''
  for (const [limit, taken] of [
    [/^Max address space\s+(\d+)/m, /^VmSize:\s+(\d+) kB/m],
    [/^Max data size\s+(\d+)/m, /^VmData:\s+(\d+) kB/m],
  ] as const) {
    const most = number(limit, limits)
    if (most !== null) yield most - 1024 * (number(taken, status) ?? 0)
  }
}

/** The first group of a pattern as a number; null where there is no match. */
function number(pattern: RegExp, text: string | null): number | null {
  const found = text === null ? undefined : pattern.exec(text)?.[1]
  return found === undefined ? null : Number(found)
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

/** The NVIDIA GPUs that nvidia-smi lists; none where it is not there or fails. */
export async function findGpus(command = 'nvidia-smi'): Promise<Gpu[]> {
  const query = ['--query-gpu=name,memory.total', '--format=csv,noheader,nounits']
  const output = await new Promise<string>((resolve) => {
    execFile(command, query, { timeout: 5000 }, (error, stdout) => resolve(error === null ? stdout : ''))
  })
  return [...output.matchAll(/^(.+), (\d+)\s*$/gm)].map(([, name = '', mebibytes]) => ({
    name,
    bytes: Number(mebibytes) * 2 ** 20,
  }))
}
