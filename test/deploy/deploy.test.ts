// What deploy/ says of the server and of the repository is true. Neither Docker nor helm is needed; deploy/README.md says what
// they would still have to show.

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { flagOf, readOptions, serveOptions, variableOf, version } from '../../src/config.js'
import { routes } from '../../src/http/routes.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const chart = 'deploy/helm/parley'
const read = (path: string) => readFileSync(join(root, path), 'utf8')
const dockerfile = read('deploy/Dockerfile')
const templates = readdirSync(join(root, chart, 'templates'), { recursive: true, encoding: 'utf8' })
  .filter((name) => /\.(yaml|tpl|txt)$/.test(name))
  .map((name) => ({ name, text: read(`${chart}/templates/${name}`) }))
const template = (name: string) => templates.find((one) => one.name === name)?.text ?? ''
const allTemplates = templates.map(({ text }) => text).join('\n')

/** As much of a JSON schema as the tests walk through. */
type Node = { properties?: Record<string, Node>; additionalProperties?: unknown }

/** The first group of every match. */
const all = (text: string, pattern: RegExp) => [...text.matchAll(pattern)].map((match) => match[1] as string)

type Yaml = string | number | boolean | Yaml[] | { [key: string]: Yaml }

/**
 * Reads the YAML that values.yaml and Chart.yaml keep to: nested `key: value` lines; values that are JSON or a plain word.
 * @throws Error at a line that is more than that
 */
function parseYaml(text: string): { [key: string]: Yaml } {
  const top: { [key: string]: Yaml } = {}
  const open = [{ indent: -1, map: top }]
  for (const line of text.split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue
    const [, spaces, key, value] = /^( *)([A-Za-z]\w*):(?: +(\S.*))?$/.exec(line) ?? []
    if (spaces === undefined || key === undefined) throw new Error(`not in the subset: ${line}`)
    while (spaces.length <= (open.at(-1)?.indent ?? -1)) open.pop()
    const parent = open.at(-1)?.map as { [key: string]: Yaml }
    if (key in parent) throw new Error(`twice: ${line}`)
    if (value === undefined) {
      const map = {}
      parent[key] = map
      open.push({ indent: spaces.length, map })
    } else if (/^(["[{]|-?\d+$|true$|false$)/.test(value)) {
      parent[key] = JSON.parse(value)
    } else {
      if (/[#:]\s|^[&*!|>%@`'?-]|^(null|~|yes|no|on|off)$/i.test(value)) throw new Error(`not in the subset: ${line}`)
      parent[key] = value
    }
  }
  return top
}

const values = parseYaml(read(`${chart}/values.yaml`))
const options = values.options as Record<string, Yaml>
const chartFile = parseYaml(read(`${chart}/Chart.yaml`))
const schema = JSON.parse(read(`${chart}/values.schema.json`))
const schemaCheck = z.fromJSONSchema(schema)
const accepts = (change: object) => schemaCheck.safeParse({ ...values, ...change }).success

/** `a.b.c` of every value that is no map, and of every empty map. */
function leaves(map: { [key: string]: Yaml }, prefix = ''): string[] {
  return Object.entries(map).flatMap(([key, value]) =>
    typeof value === 'object' && !Array.isArray(value) && Object.keys(value).length > 0
      ? leaves(value, `${prefix}${key}.`)
      : [prefix + key],
  )
}

describe('Dockerfile', () => {
  const [, build = '', run = '', cuda = '', gpu = '', last = ''] = dockerfile.split(/^FROM /m)
  const copies = (stage: string) => all(stage, /^COPY (.+)$/gm).map((line) => line.split(/\s+/))
  const fromContext = copies(build).flatMap((words) => words.slice(0, -1))
  const fromBuild = copies(run).flatMap((words) => words.slice(1, -1))

  test('its build stage copies what exists and what .dockerignore lets in, and nothing else is let in', () => {
    expect(fromContext.length).toBeGreaterThan(5)
    for (const path of fromContext) expect(existsSync(join(root, path)), path).toBe(true)
    const ignore = read('deploy/Dockerfile.dockerignore')
    expect(ignore.split('\n').filter((line) => line !== '' && !line.startsWith('#'))[0]).toBe('*')
    expect(all(ignore, /^!(.+)$/gm).sort()).toEqual([...fromContext].sort())
  })

  test('its build stage has all that the set-up reads', () => {
    const made = ['node_modules', 'build', 'dist']
    const needed = all(read('src/setup.mjs'), /at\('([^'/]+)/g).filter((path) => !made.includes(path))
    expect(needed).toContain('binding.gyp')
    for (const path of new Set(needed)) expect(fromContext, path).toContain(path)
  })

  test('its run stage copies what the build stage has', () => {
    expect(fromBuild.length).toBeGreaterThan(4)
    for (const path of fromBuild) {
      const inside = path.replace('/opt/parley/', '')
      expect(inside, path).not.toMatch(/^\//)
      expect(existsSync(join(root, inside)), path).toBe(true)
    }
  })

  test('its gpu stage adds the library that the cuda stage makes, and nobody gets it unasked', () => {
    const [made] = all(read('native/cuda/Makefile'), /^\$\(OUT\)\/(\S+):/gm)
    const [folder] = all(cuda, /^RUN make -C native\/cuda .* OUT=\/opt\/parley\/(\S+)$/gm)
    expect(copies(cuda)).toEqual([['native', 'native']])
    expect(gpu).toMatch(/^server AS gpu\n/)
    const [found, kept] = /^RUN cp -L (\S+) (\S+)$/m.exec(cuda)?.slice(1) ?? []
    const opened = /"(libcublasLt\.so\.)"/.exec(read('native/cuda/cublaslt.cc'))?.[1] // and CUDA's major version
    expect(found).toBe(`/usr/local/cuda/lib64/${opened}??`)
    expect(copies(gpu)).toEqual([
      ['--from=cuda', `/opt/parley/${folder}/${made}`, `${folder}/${made}`],
      ['--from=cuda', `${kept}${opened}*`, '/usr/lib/'], // where libraries are found without being listed
    ])
    expect(last.trim()).toBe('server')
  })

  test('removes packages that are there to be removed and that no built file asks for', () => {
    const { dependencies } = JSON.parse(read('package.json'))
    const removed = /npm uninstall --no-save --omit=dev (.+)$/m.exec(dockerfile)?.[1]?.split(' ') ?? []
    expect(removed).toContain('rolldown')
    for (const name of removed) expect(Object.keys(dependencies)).toContain(name)
    const sources = readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' }).filter((path) =>
      path.endsWith('.ts'),
    )
    for (const source of sources) {
      const packages = all(read(join('src', source)), /(?:from|import)\s*\(?'([^.'][^']*)'/g)
      for (const name of packages) expect(removed, `${source} imports ${name}`).not.toContain(name)
    }
  })

  test('starts the built command with flags that exist, as a user who is not root', () => {
    const list = (word: string): string[] => JSON.parse(new RegExp(`^${word} (\\[.*\\])$`, 'm').exec(run)?.[1] ?? '[]')
    const { bin } = JSON.parse(read('package.json'))
    expect(list('ENTRYPOINT')).toEqual(['node', bin.parley])
    const [command, ...args] = list('CMD')
    expect(command).toBe('serve')
    const flags = args.filter((arg) => arg.startsWith('-'))
    expect(flags).toEqual(['--host'])
    for (const flag of flags) expect(Object.keys(serveOptions).map(flagOf)).toContain(flag)
    expect(run).toMatch(/^USER 10001:10001$/m)
    expect(run).toMatch(new RegExp(`^EXPOSE ${serveOptions.port.default}$`, 'm'))
  })

  test('both stages are the same release of Debian and a Node that package.json allows', () => {
    expect(build).toMatch(/^node:20-bookworm AS build/)
    expect(run).toMatch(/^node:20-bookworm-slim/)
    expect(JSON.parse(read('package.json')).engines.node).toBe('>=20.19')
  })
})

describe('chart', () => {
  test('every PARLEY_* variable is an option of the server', () => {
    const variables = Object.keys(serveOptions).map(variableOf)
    const used = all(`${allTemplates}\n${dockerfile}`, /\b(PARLEY_[A-Z_]+)\b/g)
    expect(used).toContain('PARLEY_MODEL')
    for (const name of used) expect(variables).toContain(name)
  })

  test('every value of options is set as the variable of its name', () => {
    const variable = (key: string) => `PARLEY_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
    const deployment = template('deployment.yaml')
    for (const key of Object.keys(options)) {
      const at = deployment.indexOf(`- name: ${variable(key)}\n`)
      expect(at, variable(key)).toBeGreaterThan(0)
      // The value stands at most a line before (`with`) or after (`if`) the name.
      const around = `${deployment.slice(0, at).split('\n').at(-2)}\n${deployment.slice(at).split('\n')[1]}`
      expect(around, variable(key)).toContain(`.Values.options.${key} `)
    }
  })

  test('a value that says no is set too', () => {
    // `with` and `if` alone would take 0 and false for nothing.
    for (const key of ['maxQueue', 'maxQueueSeconds', 'enablePrefixCaching', 'deterministic']) {
      expect(template('deployment.yaml')).toContain(`{{- if ne (.Values.options.${key} | toString) "" }}`)
    }
  })

  test('its choices are the choices of the server', () => {
    const choices = { dtype: 'PARLEY_DTYPE', device: 'PARLEY_DEVICE', logLevel: 'PARLEY_LOG_LEVEL' }
    for (const [key, variable] of Object.entries(choices)) {
      const words: string[] = schema.properties.options.properties[key].enum
      expect(words[0]).toBe('')
      for (const word of words) expect(() => readOptions({}, { [variable]: word })).not.toThrow()
      const row = serveOptions[variable.slice(7).toLowerCase() as 'dtype' | 'device' | 'log_level']
      expect(words.slice(1)).toEqual(row.kind.placeholder.slice(1, -1).split('|'))
    }
  })

  test('probes and the scrape ask for routes of the server, probes for those that need no key', () => {
    const deployment = template('deployment.yaml')
    const probes = all(deployment, /(\w+Probe):\s+httpGet:\s+path: \S+\s+port: http\n/g)
    expect(probes).toEqual(['startupProbe', 'readinessProbe', 'livenessProbe'])
    for (const path of all(deployment, /httpGet:\s+path: (\S+)/g)) {
      const route = routes.find((one) => one.method === 'GET' && one.path === path)
      expect(route?.open, path).toBe(true)
    }
    const [scrape] = all(template('_helpers.tpl'), /prometheus\.io\/path: (\S+)/g)
    expect(routes.map((route) => route.path)).toContain(scrape)
    const asked = all(template('tests/completion.yaml'), /ask\('([^']+)'/g)
    expect(asked).toHaveLength(2)
    for (const path of asked) expect(routes.map((route) => route.path)).toContain(path)
  })

  test('one port everywhere', () => {
    const port = String(serveOptions.port.default)
    expect(all(allTemplates, /containerPort: (\S+)/g)).toEqual([port])
    expect(all(allTemplates, /prometheus\.io\/port: "(\S+)"/g)).toEqual([port])
    expect(all(allTemplates, /name: PARLEY_PORT\s+value: "(\S+)"/g)).toEqual([port])
  })

  test('its appVersion is the version of the server', () => {
    expect(chartFile.appVersion).toBe(version)
  })

  test('values.yaml keeps to its schema, which refuses what it does not know', () => {
    expect(schemaCheck.safeParse(values).error).toBeUndefined()
    expect(accepts({ options: { ...options, dtype: 'float32', threads: 4, maxModelLen: 2048 } })).toBe(true)
    expect(accepts({ options: { ...options, maxQueue: 0, enablePrefixCaching: false } })).toBe(true)
    expect(accepts({ options: { ...options, enablePrefixCaching: 'no' } })).toBe(false)
    expect(accepts({ options: { ...options, gpuMemoryUtilization: 0.9 }, gpu: { count: 2 } })).toBe(true)
    expect(accepts({ options: { ...options, gpuMemoryUtilization: 1.5 } })).toBe(false)
    // helm's --set makes a text of a number with a point.
    expect(accepts({ options: { ...options, gpuMemoryUtilization: '0.85' } })).toBe(true)
    for (const wrong of ['1.5', '0.0', '0', '.', '85%'])
      expect(accepts({ options: { ...options, gpuMemoryUtilization: wrong } })).toBe(false)
    expect(accepts({ gpu: { count: 0.5 } })).toBe(false)
    expect(accepts({ modle: {} })).toBe(false)
    expect(accepts({ options: { ...options, gpu: 1 } })).toBe(false)
    expect(accepts({ options: { ...options, dtype: 'int8' } })).toBe(false)
    expect(accepts({ options: { ...options, threads: 0 } })).toBe(false)
    expect(accepts({ image: { repository: 'parley', digest: 'sha256:1' } })).toBe(false)
    expect(accepts({ service: { port: '8000' } })).toBe(false)
  })

  test('the schema knows the values of values.yaml and no others', () => {
    const known = (node: Node, prefix: string): string[] =>
      Object.entries(node.properties ?? {}).flatMap(([key, child]) => {
        if (child.properties === undefined) return [prefix + key]
        expect(child.additionalProperties, prefix + key).toBe(false)
        return known(child, `${prefix}${key}.`)
      })
    expect(schema.additionalProperties).toBe(false)
    // helm passes `global` to every chart; limits and requests stand in values.yaml with what they hold.
    const shallow = new Set(leaves(values).map((leaf) => leaf.replace(/^(resources\.\w+)\..*/, '$1')))
    expect(
      known(schema, '')
        .filter((leaf) => leaf !== 'global')
        .sort(),
    ).toEqual([...shallow].sort())
  })

  test('templates use values that exist, and all of them', () => {
    const used = new Set(all(allTemplates, /\.Values\.([\w.]+)/g))
    const defined = leaves(values)
    for (const path of used) {
      expect(
        defined.some((leaf) => leaf === path || leaf.startsWith(`${path}.`)),
        `.Values.${path}`,
      ).toBe(true)
    }
    for (const leaf of defined) {
      expect(
        [...used].some((path) => leaf === path || leaf.startsWith(`${path}.`)),
        leaf,
      ).toBe(true)
    }
  })

  test('templates open and close their blocks and include what is defined', () => {
    const defined = all(allTemplates, /\{\{-? define "([^"]+)"/g)
    for (const { name, text } of templates) {
      for (const included of all(text, /include "([^"]+)"/g)) expect(defined, name).toContain(included)
      expect(text.split('{{').length, name).toBe(text.split('}}').length)
      const opened = all(text, /\{\{-? (if|with|range|define|block)\b/g).length
      expect(all(text, /\{\{-? (end)\b/g).length, name).toBe(opened)
    }
    for (const name of defined) expect(allTemplates).toContain(`include "${name}"`)
  })

  test('what fills in several lines stands as deep as it indents them', () => {
    for (const { name, text } of templates) {
      for (const [line, spaces = '', depth] of text.matchAll(/^( *)\S.*\bnindent (\d+)/gm)) {
        expect(spaces.length, `${name}: ${line}`).toBe(Number(depth))
      }
    }
  })

  test('keeps to Pod Security "restricted"', () => {
    const helpers = template('_helpers.tpl')
    for (const line of [
      'runAsNonRoot: true',
      'runAsUser: 10001',
      'type: RuntimeDefault',
      'allowPrivilegeEscalation: false',
      'readOnlyRootFilesystem: true',
      'drop: [ALL]',
    ]) {
      expect(helpers).toContain(`\n${line === 'type: RuntimeDefault' || line === 'drop: [ALL]' ? '  ' : ''}${line}\n`)
    }
    for (const name of ['deployment.yaml', 'tests/completion.yaml']) {
      const text = template(name)
      expect(text).toMatch(/^ +securityContext:\n +\{\{- include "parley\.podSecurityContext"/m)
      expect(text).toMatch(/^ +securityContext:\n +\{\{- include "parley\.containerSecurityContext"/m)
      expect(text.match(/automountServiceAccountToken: false/g)).toHaveLength(1)
      expect(text).not.toMatch(/privileged|hostNetwork|hostPID|hostIPC|hostPort/)
    }
  })

  test('leaves the server the time it takes to stop', () => {
    const drainMs = Number(/const drainMs = (\d+)/.exec(read('src/listen.ts'))?.[1])
    expect(template('deployment.yaml')).toContain('(add .Values.preStopSleepSeconds 6)')
    expect(drainMs + 500).toBeLessThanOrEqual(6000)
    const grace = Number(values.terminationGracePeriodSeconds)
    expect(grace).toBeGreaterThanOrEqual(Number(values.preStopSleepSeconds) + 6)
  })
})
