// Memory that is free and processors, read from files as Linux, containers and limits of a process show it; GPUs as nvidia-smi lists them.

import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { availableCores, findGpus, freeMemory } from '../src/machine.js'

const gib = 2 ** 30
const machine = { '/proc/meminfo': 'MemTotal:       24684092 kB\nMemFree:  1 kB\nMemAvailable:   16777216 kB\n' }
const v2 = '/sys/fs/cgroup'
const v1 = '/sys/fs/cgroup/memory'

test.each<[string, Record<string, string>, number, string]>([
  ['a machine without groups', {}, 16 * gib, 'on this machine'],
  [
    'a container (version 2), whose caches give way',
    {
      '/proc/self/cgroup': '0::/\n',
      [`${v2}/memory.max`]: `${8 * gib}\n`,
      [`${v2}/memory.current`]: `${7 * gib}\n`,
      [`${v2}/memory.stat`]: `anon ${gib}\nfile ${6 * gib}\ninactive_anon ${gib}\nactive_file ${2 * gib}\ninactive_file ${4 * gib}\n`,
    },
    7 * gib,
    "within the container's limit",
  ],
  [
    'a group without a limit inside one that has one',
    {
      '/proc/self/cgroup': '0::/pods/a/main\n',
      [`${v2}/pods/a/main/memory.max`]: 'max\n',
      [`${v2}/pods/a/memory.max`]: `${4 * gib}\n`,
      [`${v2}/pods/a/memory.current`]: `${gib}\n`,
    },
    3 * gib,
    "within the container's limit",
  ],
  [
    "a container (version 1), where the path is the host's",
    {
      '/proc/self/cgroup': '5:cpu,cpuacct:/docker/12ab\n4:memory:/docker/12ab\n0::/\n',
      [`${v1}/memory.limit_in_bytes`]: `${2 * gib}\n`,
      [`${v1}/memory.usage_in_bytes`]: `${gib}\n`,
      [`${v1}/memory.stat`]: `cache 1\nactive_file 7\ntotal_active_file ${gib / 4}\ntotal_inactive_file ${gib / 4}\n`,
    },
    1.5 * gib,
    "within the container's limit",
  ],
  [
    'a limit of version 1 that is none, and one that is larger than the machine',
    {
      '/proc/self/cgroup': '4:memory:/a\n',
      [`${v1}/a/memory.limit_in_bytes`]: '9223372036854771712\n',
      [`${v1}/memory.limit_in_bytes`]: `${64 * gib}\n`,
    },
    16 * gib,
    'on this machine',
  ],
  [
    'ulimit -v',
    {
      '/proc/self/limits':
        'Limit                     Soft Limit           Hard Limit           Units\nMax data size             unlimited            unlimited            bytes\nMax address space         4294967296           unlimited            bytes\n',
      '/proc/self/status': 'VmPeak:  9 kB\nVmSize:\t 1048576 kB\n',
    },
    3 * gib,
    "within the process's limit (ulimit)",
  ],
  [
    'a group that has taken more than it may',
    {
      '/proc/self/cgroup': '0::/\n',
      [`${v2}/memory.max`]: `${gib}\n`,
      [`${v2}/memory.current`]: `${2 * gib}\n`,
    },
    0,
    "within the container's limit",
  ],
])('%s', (_name, files, bytes, bound) => {
  const all: Record<string, string> = { ...machine, ...files }
  expect(freeMemory((path) => all[path] ?? null)).toEqual({ bytes, bound })
})

test('a system without /proc, and this one', () => {
  expect(freeMemory(() => null)).toEqual({ bytes: Math.floor(0.75 * totalmem()), bound: 'on this machine' })
  expect(freeMemory().bytes).toBeGreaterThan(2 ** 20)
})

test.each<[string, Record<string, string>, number]>([
  ['no groups', {}, 8],
  ['no limit (version 2)', { '/proc/self/cgroup': '0::/\n', [`${v2}/cpu.max`]: 'max 100000\n' }, 8],
  ['two and a half processors', { '/proc/self/cgroup': '0::/\n', [`${v2}/cpu.max`]: '250000 100000\n' }, 3],
  ['more than there are', { '/proc/self/cgroup': '0::/\n', [`${v2}/cpu.max`]: '3200000 100000\n' }, 8],
  ['a part of one', { '/proc/self/cgroup': '0::/a\n', [`${v2}/a/cpu.max`]: '10000 100000\n' }, 1],
  [
    'a group around that has less',
    {
      '/proc/self/cgroup': '0::/a/b\n',
      [`${v2}/a/b/cpu.max`]: '400000 100000\n',
      [`${v2}/a/cpu.max`]: '200000 100000\n',
    },
    2,
  ],
  [
    "version 1, where the path is the host's",
    {
      '/proc/self/cgroup': '5:cpu,cpuacct:/docker/12ab\n4:memory:/docker/12ab\n0::/\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_quota_us': '150000\n',
      '/sys/fs/cgroup/cpu/cpu.cfs_period_us': '50000\n',
    },
    3,
  ],
  [
    'no limit (version 1)',
    {
      '/proc/self/cgroup': '5:cpuacct,cpu:/a\n',
      '/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us': '-1\n',
      '/sys/fs/cgroup/cpu/a/cpu.cfs_period_us': '100000\n',
    },
    8,
  ],
])('processors: %s', (_name, files, cores) => {
  expect(availableCores((path) => files[path] ?? null, 8)).toBe(cores)
})

const folder = mkdtempSync(join(tmpdir(), 'parley-smi-'))
afterAll(() => rmSync(folder, { recursive: true }))

test('GPUs, and none where nvidia-smi is not there or fails', async () => {
  const smi = join(folder, 'nvidia-smi')
  const script = (text: string) => {
    writeFileSync(smi, `#!/bin/sh\n${text}\n`)
    chmodSync(smi, 0o755)
  }
  script('echo "NVIDIA H100 80GB HBM3, 81559"; echo "NVIDIA L4, 23034"')
  expect(await findGpus(smi)).toEqual([
    { name: 'NVIDIA H100 80GB HBM3', bytes: 81559 * 2 ** 20 },
    { name: 'NVIDIA L4', bytes: 23034 * 2 ** 20 },
  ])
  script('echo "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."; exit 9')
  expect(await findGpus(smi)).toEqual([])
  expect(await findGpus(join(folder, 'missing'))).toEqual([])
})
