// Downloads from a stand-in hub: what is asked for, where it goes, and what every fault comes to.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { pullConfig, pullModel } from '../../src/models/hub.js'
import { parseHubId } from '../../src/models/hub-id.js'
import { bytesText, HubProgress } from '../../src/models/hub-progress.js'
import { hubSettings } from '../../src/models/hub-settings.js'
import { loadModel } from '../../src/models/load.js'
import { ModelError } from '../../src/models/model-error.js'
import { commit, cutAfter, type FakeHub, gitSha1, hashOf, sha256, startFakeHub } from './fake_hub.js'
import { emptyFolder, fixture } from './scratch.js'

const weights = 'model.safetensors'
const quick = { retryMs: 5, retries: 3, silenceMs: 2000 }

/** Bytes that are not the same everywhere. */
function noise(count: number): Buffer {
  const bytes = Buffer.alloc(count)
  let state = 1
  for (let i = 0; i < count; i++) {
    state = (state * 1103515245 + 12345) & 0x7fffffff
    bytes[i] = state >> 16
  }
  return bytes
}

function fixtureFiles(name: string): Record<string, Buffer> {
  return Object.fromEntries(readdirSync(fixture(name)).map((file) => [file, readFileSync(join(fixture(name), file))]))
}

/** A model too small to load. */
const plain = { 'config.json': '{}', 'tokenizer.json': '{"model":{}}', [weights]: noise(300_000) }

interface Pulled {
  folder: string
  notes: string[]
}

class Machine {
  readonly cache = emptyFolder()
  readonly folder: string

  constructor(
    readonly hub: FakeHub,
    readonly environment: Record<string, string> = {},
  ) {
    this.folder = join(this.cache, `models--${hub.repo.replace('/', '--')}`)
  }

  settings() {
    return hubSettings({
      HF_ENDPOINT: this.hub.url,
      HF_HUB_CACHE: this.cache,
      HF_HOME: this.cache,
      ...this.environment,
    })
  }

  async pull(model = this.hub.repo, check?: (folder: string) => Promise<void>): Promise<Pulled> {
    const id = parseHubId(model)
    if (!id) throw new Error(`${model} is no id`)
    const notes: string[] = []
    const progress = new HubProgress(model, { columns: null, write: (line) => notes.push(line) })
    return { folder: await pullModel(id, this.settings(), progress, check, quick), notes }
  }

  async failure(model?: string): Promise<string> {
    const error = await this.pull(model).then(
      () => new Error('it was downloaded'),
      (thrown) => thrown,
    )
    expect(error).toBeInstanceOf(ModelError)
    expect(error.message).not.toContain('\n')
    return error.message
  }

  blob(name: string): string {
    const file = this.hub.files.get(name)
    if (!file) throw new Error(name)
    return join(this.folder, 'blobs', hashOf(file))
  }

  /** The weights lie in the snapshot, whole, and nothing half done beside them. */
  expectWhole(folder: string): void {
    for (const [name, { bytes }] of this.hub.files)
      if (existsSync(join(folder, name))) expect(readFileSync(join(folder, name)).equals(bytes)).toBe(true)
    expect(existsSync(join(folder, weights))).toBe(true)
    expect(readdirSync(join(this.folder, 'blobs')).filter((name) => name.includes('incomplete'))).toEqual([])
  }
}

describe('a model id', () => {
  test.each([
    ['EleutherAI/pythia-160m', 'EleutherAI/pythia-160m', 'main'],
    ['EleutherAI/pythia-160m@step3000', 'EleutherAI/pythia-160m', 'step3000'],
    ['org/name@refs/pr/1', 'org/name', 'refs/pr/1'],
    [`org/na.me@${commit}`, 'org/na.me', commit],
  ])('%s', (text, repo, revision) => expect(parseHubId(text)).toEqual({ repo, revision, text }))

  test.each([
    'gpt2',
    './org/name',
    '/org/name',
    'org/name/',
    'a/b/c',
    'org/name@',
    'org/name@..',
    'org/name@a/../b',
    'org/..',
    '../name',
    '~/x',
    'org/a--b',
    'org/na me',
    '',
  ])('%j is none', (text) => expect(parseHubId(text)).toBe(null))
})

describe('the variables', () => {
  test('say where the cache is, as huggingface_hub does', () => {
    const folder = (environment: Record<string, string>) => hubSettings(environment).cacheFolder
    const home = process.env.HOME ?? ''
    expect(folder({})).toBe(join(home, '.cache/huggingface/hub'))
    expect(folder({ XDG_CACHE_HOME: '/x' })).toBe('/x/huggingface/hub')
    expect(folder({ XDG_CACHE_HOME: '/x', HF_HOME: '/h' })).toBe('/h/hub')
    expect(folder({ HF_HOME: '~/h' })).toBe(join(home, 'h/hub'))
    expect(folder({ HF_HOME: '/h', HF_HUB_CACHE: '/c', HUGGINGFACE_HUB_CACHE: '/d' })).toBe('/c')
  })

  test('say which token, or a file does', () => {
    const home = emptyFolder()
    const token = (environment: Record<string, string>) => hubSettings({ HF_HOME: home, ...environment }).token
    expect(token({})).toBe(null)
    writeFileSync(join(home, 'token'), 'hf_file\n')
    expect(token({})).toBe('hf_file')
    expect(token({ HF_TOKEN: 'hf_variable' })).toBe('hf_variable')
    expect(token({ HUGGING_FACE_HUB_TOKEN: 'hf_old' })).toBe('hf_old')
    expect(token({ HF_TOKEN: 'hf_variable', HF_HUB_DISABLE_IMPLICIT_TOKEN: '1' })).toBe(null)
    writeFileSync(join(home, 'other'), 'hf_other')
    expect(token({ HF_TOKEN_PATH: join(home, 'other') })).toBe('hf_other')
    expect(() => token({ HF_TOKEN: 'hf_a\r\nhost: evil' })).toThrow(
      /^HF_TOKEN: expected printable characters without spaces/,
    )
  })

  test('say which hub, and whether it may be asked', () => {
    expect(hubSettings({})).toMatchObject({ endpoint: 'https://huggingface.co', offline: false })
    expect(hubSettings({ HF_ENDPOINT: 'https://mirror/hf//', HF_HUB_OFFLINE: 'Yes' })).toMatchObject({
      endpoint: 'https://mirror/hf',
      offline: true,
    })
    for (const wrong of ['mirror', 'ftp://mirror', 'https://user:pass@mirror'])
      expect(() => hubSettings({ HF_ENDPOINT: wrong })).toThrow(/^HF_ENDPOINT: expected a URL/)
  })
})

describe('a download', () => {
  test('can be loaded, lies as huggingface_hub lays it, and is asked for once', async () => {
    const hub = await startFakeHub(fixtureFiles('neox-sequential'))
    const machine = new Machine(hub)
    const { folder } = await machine.pull()
    expect((await loadModel(folder)).architecture).toBe('GPTNeoXForCausalLM')
    expect(folder).toBe(join(machine.folder, 'snapshots', commit))
    expect(readFileSync(join(machine.folder, 'refs/main'), 'utf8')).toBe(commit)
    for (const [name, file] of hub.files) {
      const hash = file.large ? sha256(file.bytes) : gitSha1(file.bytes)
      expect(readlinkSync(join(folder, name))).toBe(`../../blobs/${hash}`)
      expect(existsSync(join(machine.cache, '.locks', 'models--org--tiny', `${hash}.lock`))).toBe(true)
    }
    expect(readdirSync(join(machine.folder, 'blobs'))).toHaveLength(hub.files.size)
    hub.seen.length = 0
    expect((await machine.pull()).folder).toBe(folder)
    expect(hub.seen.map(({ kind }) => kind)).toEqual(['list'])
  })

  test('fetches only what is needed, safetensors before .bin', async () => {
    const others = [
      'README.md',
      'flax_model.msgpack',
      'tf_model.h5',
      'pytorch_model.bin',
      'onnx/model.onnx',
      'training_args.bin',
      'consolidated.safetensors',
    ]
    const needed = {
      ...plain,
      'merges.txt': 'm',
      'vocab.json': '{}',
      'spiece.model': 's',
      'generation_config.json': '{}',
      'chat_template.jinja': 'c',
    }
    const hub = await startFakeHub({ ...needed, ...Object.fromEntries(others.map((name) => [name, 'x'])) })
    const { folder } = await new Machine(hub).pull()
    expect(readdirSync(folder).toSorted()).toEqual(Object.keys(needed).toSorted())
    hub.files.delete(weights)
    const bin = await new Machine(hub).pull()
    expect(readdirSync(bin.folder)).toContain('pytorch_model.bin')
    expect(new Set(hub.seen.map(({ name }) => name))).not.toContain('flax_model.msgpack')
  })

  test('of a revision is kept beside that of main, and shares what is the same', async () => {
    const hub = await startFakeHub(plain)
    const step = 'beef000000000000000000000000000000000002'
    hub.revisions.set('step3000', step).set('refs/pr/1', step)
    const machine = new Machine(hub)
    await machine.pull()
    hub.files.set(weights, { bytes: noise(1000), large: true })
    const { folder } = await machine.pull('org/tiny@step3000')
    expect(folder.endsWith(step)).toBe(true)
    expect(statSync(join(folder, weights)).size).toBe(1000)
    expect(readFileSync(join(machine.folder, 'refs/step3000'), 'utf8')).toBe(step)
    expect(readdirSync(join(machine.folder, 'blobs'))).toHaveLength(4)
    expect((await machine.pull('org/tiny@refs/pr/1')).folder).toBe(folder)
    expect(readFileSync(join(machine.folder, 'refs/refs/pr/1'), 'utf8')).toBe(step)
    expect((await machine.pull(`org/tiny@${step}`)).folder).toBe(folder)
    expect(readdirSync(join(machine.folder, 'refs')).toSorted()).toEqual(['main', 'refs', 'step3000'])
  })

  test('sends the token to the hub and to nobody else', async () => {
    const hub = await startFakeHub(plain)
    await new Machine(hub, { HF_TOKEN: 'hf_secret' }).pull()
    const tokens = (kinds: string[]) =>
      hub.seen.filter(({ kind }) => kinds.includes(kind)).map((seen) => seen.authorization)
    expect(new Set(tokens(['list', 'file']))).toEqual(new Set(['Bearer hf_secret']))
    expect(tokens(['cdn'])).toEqual([undefined])
  })

  test('follows a renamed model on the same hub with the token', async () => {
    const hub = await startFakeHub(plain)
    hub.fault = ({ kind, authorization }, response) => {
      if (kind !== 'list' || hub.repo === 'org/tiny') return false
      expect(authorization).toBe('Bearer t')
      hub.repo = 'org/tiny'
      response.writeHead(307, { location: '/api/models/org/tiny/revision/main' }).end()
      return true
    }
    hub.repo = 'org/old'
    await new Machine(hub, { HF_TOKEN: 't' }).pull('org/old').catch(() => {})
    expect(hub.seen.filter(({ kind }) => kind === 'list')).toHaveLength(2)
  })

  test('checks the config before the weights come', async () => {
    const hub = await startFakeHub(plain)
    const refuse = async (folder: string) => {
      expect(existsSync(join(folder, 'tokenizer.json'))).toBe(true)
      throw new ModelError('no such architecture')
    }
    await expect(new Machine(hub).pull(hub.repo, refuse)).rejects.toThrow('no such architecture')
    expect(hub.seen.some(({ name }) => name === weights)).toBe(false)
  })
})

describe('the config alone', () => {
  test('is asked for alone, or not at all where the cache has it', async () => {
    const hub = await startFakeHub(fixtureFiles('neox-sequential'))
    const machine = new Machine(hub)
    const id = parseHubId(hub.repo) as never
    const pull = () =>
      pullConfig(id, machine.settings(), new HubProgress('', { columns: null, write: () => {} }), quick)
    const folder = await pull()
    expect(readdirSync(folder)).toEqual(['config.json'])
    expect(hub.seen.filter(({ kind }) => kind === 'file').every(({ name }) => name === 'config.json')).toBe(true)
    expect((await machine.pull()).folder).toBe(folder)
    hub.seen.length = 0
    machine.environment.HF_HUB_OFFLINE = '1'
    expect(await pull()).toBe(folder)
    expect(hub.seen).toEqual([])
  })

  test('that nobody has is an error with a way out', async () => {
    const hub = await startFakeHub({ [weights]: noise(9) })
    const machine = new Machine(hub)
    const pull = (model: string) =>
      pullConfig(
        parseHubId(model) as never,
        machine.settings(),
        new HubProgress('', { columns: null, write: () => {} }),
        quick,
      )
    await expect(pull(hub.repo)).rejects.toThrow('org/tiny: expected a config.json among its files, found none')
    await expect(pull('org/nothing')).rejects.toThrow(/org\/nothing/)
    machine.environment.HF_HUB_OFFLINE = '1'
    await expect(pull(hub.repo)).rejects.toThrow(/because HF_HUB_OFFLINE is set, found nothing of it/)
  })
})

describe('a connection that is cut', () => {
  test('at any byte is continued at that byte', async () => {
    const hub = await startFakeHub({ ...plain, [weights]: noise(997) })
    for (const at of [0, 1, 63, 64, 500, 996]) {
      hub.seen.length = 0
      let cuts = 0
      hub.fault = (seen, response) => {
        if (seen.kind !== 'cdn' || cuts++ > 0) return false
        cutAfter(hub, seen, response, at)
        return true
      }
      const machine = new Machine(hub)
      machine.expectWhole((await machine.pull()).folder)
      const ranges = hub.seen.filter(({ kind }) => kind === 'cdn').map(({ range }) => range)
      expect(ranges).toEqual([undefined, at === 0 ? undefined : `bytes=${at}-`])
    }
  })

  test('many times is continued as long as enough comes each time', async () => {
    const size = 12 << 20
    const hub = await startFakeHub({ ...plain, [weights]: noise(size) })
    hub.fault = (seen, response) => {
      const from = Number(/\d+/.exec(seen.range ?? '0')?.[0])
      if (seen.kind !== 'cdn' || size - from < 2 << 20) return false
      cutAfter(hub, seen, response, (2 << 20) - 1)
      return true
    }
    const machine = new Machine(hub)
    machine.expectWhole((await machine.pull()).folder)
    // Every byte came once, or little more: what was on its way when the cut came may be lost.
    expect(hub.seen.filter(({ kind }) => kind === 'cdn').length).toBeGreaterThan(5)
  })

  test('again and again ends with what was received kept, and the next start continues', async () => {
    const hub = await startFakeHub(plain)
    hub.fault = (seen, response) => {
      if (seen.kind !== 'cdn') return false
      cutAfter(hub, seen, response, 1000)
      return true
    }
    const machine = new Machine(hub)
    expect(await machine.failure()).toMatch(/^the hub http.* cannot be used: the connection was cut \(4 attempts\)$/)
    expect(statSync(`${machine.blob(weights)}.incomplete`).size).toBe(4000)
    hub.fault = () => false
    machine.expectWhole((await machine.pull()).folder)
    expect(hub.seen.at(-1)?.range).toBe('bytes=4000-')
  })

  test('by silence is cut here', async () => {
    const hub = await startFakeHub(plain)
    let silences = 0
    hub.fault = (seen, response) => {
      if (seen.kind !== 'cdn' || silences++ > 0) return false
      response.writeHead(200, { 'content-length': 300_000 }).write('x')
      return true
    }
    const machine = new Machine(hub)
    const id = parseHubId(hub.repo)
    if (!id) throw new Error()
    const progress = new HubProgress('', { columns: null, write: () => {} })
    // 'x' is not the first byte: the hash finds it, and the second download is whole.
    machine.expectWhole(await pullModel(id, machine.settings(), progress, undefined, { ...quick, silenceMs: 300 }))
  })

  test('where ranges are not known starts over and keeps what it has', async () => {
    const hub = await startFakeHub(plain)
    hub.noRanges = true
    let cuts = 0
    hub.fault = (seen, response) => {
      if (seen.kind !== 'cdn' || cuts++ > 0) return false
      cutAfter(hub, { ...seen, range: undefined }, response, 100_000)
      return true
    }
    const machine = new Machine(hub)
    machine.expectWhole((await machine.pull()).folder)
  })
})

describe('a hub with troubles', () => {
  const statuses = (hub: FakeHub, kind: string, answers: [number, Record<string, string>][]) => {
    hub.fault = (seen, response) => {
      const next = seen.kind === kind ? answers.shift() : undefined
      if (!next) return false
      response.writeHead(next[0], next[1]).end('trouble')
      return true
    }
  }

  test.each(['list', 'file', 'cdn'])('is asked again after 500, 503, 429 (%s)', async (kind) => {
    const hub = await startFakeHub(plain)
    statuses(hub, kind, [
      [500, {}],
      [503, {}],
      [429, { 'retry-after': '0' }],
    ])
    const machine = new Machine(hub)
    const { folder, notes } = await machine.pull()
    machine.expectWhole(folder)
    expect(notes.join('')).toMatch(/it answers 500; again in 0\.0 s/)
  })

  test('is given up after too many failures', async () => {
    const hub = await startFakeHub(plain)
    statuses(
      hub,
      'list',
      Array.from({ length: 9 }, () => [502, {}]),
    )
    expect(await new Machine(hub).failure()).toMatch(
      /cannot be used: it answers 502 \(4 attempts\), found nothing of it in .*; download it with/,
    )
    expect(hub.seen).toHaveLength(4)
  })

  test.each([
    [{ 'retry-after': '3600' }],
    [{ 'retry-after': new Date(Date.now() + 3_600_000).toUTCString() }],
    [{ ratelimit: '"api";r=0;t=3600' }],
  ])('is not waited for when it asks for an hour: %j', async (headers) => {
    const hub = await startFakeHub(plain)
    statuses(hub, 'file', [[429, headers as Record<string, string>]])
    expect(await new Machine(hub).failure()).toMatch(
      /too many requests \(429\); it asks to wait 3[56]\d\d s, try again then$/,
    )
  })

  test('is waited for as long as it says', async () => {
    const hub = await startFakeHub(plain)
    statuses(hub, 'file', [[429, { 'retry-after': '1' }]])
    const { notes } = await new Machine(hub).pull()
    expect(notes.join('')).toContain('too many requests (429); again in 1.0 s')
  })

  test.each<[string, number, string, RegExp]>([
    [
      'gated',
      401,
      'GatedRepo',
      /^org\/tiny@main: http.* gives it only to those who have accepted its terms \(401\); accept them at http.*\/org\/tiny, then set HF_TOKEN/,
    ],
    ['gated', 403, 'GatedRepo', /accept them at http.*\/org\/tiny, then set HF_TOKEN/],
    ['forbidden', 403, '', /set HF_TOKEN to a token of that account that may read it$/],
    [
      'missing or private',
      401,
      'RepoNotFound',
      /^org\/tiny@main: http.* has no such model for the public \(401\); check the spelling; if it is private or gated, set HF_TOKEN$/,
    ],
    ['missing', 404, '', /has no such model for the public \(404\)/],
    [
      'without the revision',
      404,
      'RevisionNotFound',
      /^org\/tiny@main: http.* has the model, but no such revision \(404\)$/,
    ],
    ['strange', 418, '', /expected the file from http.*, found HTTP status 418$/],
  ])('says %s (%d %s)', async (_name, status, code, message) => {
    const hub = await startFakeHub(plain)
    statuses(hub, 'list', [[status, code === '' ? {} : { 'x-error-code': code }]])
    const machine = new Machine(hub)
    expect(await machine.failure()).toMatch(message)
    expect(hub.seen).toHaveLength(1)
    expect(existsSync(machine.folder)).toBe(false)
  })

  test('that gates only the files says so too', async () => {
    const hub = await startFakeHub(plain)
    statuses(hub, 'file', [[403, { 'x-error-code': 'GatedRepo' }]])
    expect(await new Machine(hub).failure()).toMatch(/^org\/tiny\/.*\.json: .*accept them at http[^ ]*\/org\/tiny,/)
  })

  test('that refuses a token says to check it, and does not show it', async () => {
    const hub = await startFakeHub(plain)
    statuses(hub, 'list', [[401, {}]])
    const message = await new Machine(hub, { HF_TOKEN: 'hf_secret' }).failure()
    expect(message).toContain('check the spelling, and that the token in HF_TOKEN is valid')
    expect(message).not.toContain('hf_secret')
  })

  test.each<[string, string | object, RegExp]>([
    ['no JSON', '<html>', /expected JSON, found something else$/],
    ['no commit', { siblings: [{ rfilename: 'config.json' }] }, /expected a commit in `sha`, found nothing$/],
    [
      'a commit that is a path',
      { sha: '../../..', siblings: [{ rfilename: 'a' }] },
      /expected a commit in `sha`, found \.\.\/\.\.\/\.\.$/,
    ],
    ['no files', { sha: commit, siblings: [] }, /expected names of files in `siblings`, found \[\]$/],
    [
      'no weights',
      { sha: commit, siblings: [{ rfilename: 'config.json' }, { rfilename: 'a.gguf' }] },
      /expected weights as .* found a\.gguf$/,
    ],
    [
      'no config',
      { sha: commit, siblings: [{ rfilename: weights }] },
      /expected a config\.json among its files, found none$/,
    ],
  ])('that lists %s', async (_name, body, message) => {
    const hub = await startFakeHub(plain)
    hub.fault = ({ kind }, response) => {
      if (kind === 'list') response.end(typeof body === 'string' ? body : JSON.stringify(body))
      return kind === 'list'
    }
    expect(await new Machine(hub).failure()).toMatch(message)
  })

  test('cannot make us write outside of the cache', async () => {
    const hub = await startFakeHub({
      ...plain,
      '../../../escaped.json': 'x',
      'sub/tokenizer.json': 'y',
      '..\\evil.model': 'z',
    })
    const machine = new Machine(hub)
    expect(readdirSync((await machine.pull()).folder).toSorted()).toEqual(Object.keys(plain).toSorted())
    for (const shard of ['../../x.safetensors', '/x.safetensors', 'a/b.safetensors', 'x.sh', 5]) {
      const index = { weight_map: { a: shard } }
      const evil = await startFakeHub({ 'config.json': '{}', 'model.safetensors.index.json': JSON.stringify(index) })
      expect(await new Machine(evil).failure()).toMatch(/weight_map: expected names of .* files beside it, found/)
    }
    const strange = await startFakeHub(plain)
    strange.fault = ({ method }, response) => {
      if (method === 'HEAD') response.writeHead(200, { etag: '"../../x"', 'content-length': '1' }).end()
      return method === 'HEAD'
    }
    expect(await new Machine(strange).failure()).toMatch(
      /expected a sha1 or sha256 in x-linked-etag or etag, found "..\/..\/x"$/,
    )
  })

  test('that redirects for ever, to no URL, or to another protocol', async () => {
    const hub = await startFakeHub(plain)
    const locations: [string, RegExp][] = [
      ['/api/models/org/tiny/revision/main', /expected a few redirects, found more than 5$/],
      ['http://', /expected a redirect to a URL, found http:\/\/$/],
      ['file:///etc/passwd', /expected a redirect to https, found file:$/],
    ]
    for (const [location, message] of locations) {
      hub.fault = (_seen, response) => {
        response.writeHead(302, { location }).end()
        return true
      }
      expect(await new Machine(hub).failure()).toMatch(message)
    }
  })

  test('that names a shard it does not have', async () => {
    const index = JSON.stringify({ weight_map: { a: 'model-00001-of-00001.safetensors' } })
    const hub = await startFakeHub({ 'config.json': '{}', 'model.safetensors.index.json': index })
    expect(await new Machine(hub).failure()).toMatch(
      /names model-00001-of-00001\.safetensors, which is not among the model's files$/,
    )
  })
})

describe('what comes is checked', () => {
  test('a wrong hash is downloaded anew, then refused, and nothing of it stays', async () => {
    for (const name of ['config.json', weights]) {
      const hub = await startFakeHub(plain)
      const file = hub.files.get(name)
      if (!file) throw new Error(name)
      file.says = { hash: '0'.repeat(file.large ? 64 : 40) }
      const machine = new Machine(hub)
      const kind = file.large ? 'sha256' : 'git sha1'
      expect(await machine.failure()).toBe(
        `org/tiny/${name}: expected ${kind} ${file.says.hash}, found ${hashOf(file)} in two downloads; nothing of it is kept`,
      )
      expect(readdirSync(join(machine.folder, 'blobs')).some((blob) => blob.startsWith('000'))).toBe(false)
      expect(existsSync(join(machine.folder, 'refs/main'))).toBe(false)
    }
  })

  test.each([299_999, 300_001, 0])('a size that is not the announced one (%d) is refused', async (size) => {
    const hub = await startFakeHub(plain)
    const file = hub.files.get(weights)
    if (file) file.says = { size }
    const message = await new Machine(hub).failure()
    expect(message).toMatch(
      size === 0
        ? /expected sha256/
        : new RegExp(`expected ${size} bytes, as announced, from byte 0 on, found 300000 from byte 0 on$`),
    )
    expect(message).not.toContain('signature')
  })

  test('a body longer than announced, of a server that gives no length', async () => {
    const hub = await startFakeHub(plain)
    hub.fault = ({ kind }, response) => {
      if (kind !== 'cdn') return false
      response.write(Buffer.alloc(300_000))
      response.end('x')
      return true
    }
    expect(await new Machine(hub).failure()).toMatch(/expected 300000 bytes, as announced, found more$/)
  })

  test('a range that is not the one asked for is refused', async () => {
    const hub = await startFakeHub(plain)
    const machine = new Machine(hub)
    hub.fault = (seen, response) => {
      if (seen.kind !== 'cdn') return false
      if (seen.range === undefined) cutAfter(hub, seen, response, 100)
      else response.writeHead(206, { 'content-range': 'bytes 200-299999/300000' }).end(Buffer.alloc(299_800))
      return true
    }
    expect(await machine.failure()).toMatch(/from byte 100 on, found 300000 from byte 200 on$/)
  })

  test('a part of an earlier download that is broken, or too long, is replaced', async () => {
    for (const part of [Buffer.alloc(1000, 7), Buffer.alloc(400_000), Buffer.alloc(300_000)]) {
      const hub = await startFakeHub(plain)
      const machine = new Machine(hub)
      mkdirSync(join(machine.folder, 'blobs'), { recursive: true })
      writeFileSync(`${machine.blob(weights)}.incomplete`, part)
      machine.expectWhole((await machine.pull()).folder)
    }
  })

  test('empty files are files', async () => {
    const hub = await startFakeHub({ ...plain, 'merges.txt': '' })
    const { folder } = await new Machine(hub).pull()
    expect(statSync(join(folder, 'merges.txt')).size).toBe(0)
  })
})

describe('a disk', () => {
  test('without room is seen before the weights are asked for', async () => {
    const hub = await startFakeHub(plain)
    const file = hub.files.get(weights)
    if (file) file.says = { size: 9e14 }
    const message = await new Machine(hub).failure()
    expect(message).toMatch(
      /: expected room for 900 TB more, found .*B free; make room, or set HF_HUB_CACHE to a folder on another disk$/,
    )
    expect(hub.seen.some(({ kind }) => kind === 'cdn')).toBe(false)
  })

  test.skipIf(!existsSync('/dev/full'))('that fills up meanwhile is named, with what is still needed', async () => {
    const hub = await startFakeHub(plain)
    const machine = new Machine(hub)
    mkdirSync(join(machine.folder, 'blobs'), { recursive: true })
    symlinkSync('/dev/full', `${machine.blob(weights)}.incomplete`)
    expect(await machine.failure()).toMatch(
      /blobs: the disk is full \(ENOSPC\) at 0 B of model\.safetensors; org\/tiny needs 300 kB more\. What has come is kept: make room and start again/,
    )
  })

  test('that cannot be written is named', async () => {
    const hub = await startFakeHub(plain)
    const file = join(emptyFolder(), 'file')
    writeFileSync(file, '')
    expect(await new Machine(hub, { HF_HUB_CACHE: file }).failure()).toMatch(
      /cannot be written \(ENOTDIR\); set HF_HUB_CACHE/,
    )
  })
})

describe('without the hub', () => {
  test('a whole model of the cache serves, offline or with a hub that is away', async () => {
    const hub = await startFakeHub(plain)
    const machine = new Machine(hub)
    const { folder } = await machine.pull()
    hub.seen.length = 0
    machine.environment.HF_HUB_OFFLINE = '1'
    expect((await machine.pull()).folder).toBe(folder)
    expect((await machine.pull(`org/tiny@${commit}`)).folder).toBe(folder)
    expect(hub.seen).toEqual([])
    delete machine.environment.HF_HUB_OFFLINE
    hub.close()
    const again = await machine.pull()
    expect(again.folder).toBe(folder)
    expect(again.notes.join('')).toMatch(
      /cannot be used: the connection is refused; using the copy in the cache, which may not be the newest/,
    )
  })

  test('what is missing is named, with the way out', async () => {
    const hub = await startFakeHub(fixtureFiles('neox-sequential'))
    const machine = new Machine(hub)
    machine.environment.HF_HUB_OFFLINE = 'TRUE'
    expect(await machine.failure()).toMatch(
      /^org\/tiny: expected the whole model in the cache because HF_HUB_OFFLINE is set, found nothing of it in .*; download it with `parley pull org\/tiny` where there is a network$/,
    )
    delete machine.environment.HF_HUB_OFFLINE
    const { folder } = await machine.pull()
    rmSync(join(machine.folder, 'blobs', hashOf(hub.files.get('model-00002-of-00003.safetensors') as never)))
    machine.environment.HF_HUB_OFFLINE = 'on'
    expect(await machine.failure()).toContain(`found it without model-00002-of-00003.safetensors in ${folder}`)
    delete machine.environment.HF_HUB_OFFLINE
    expect((await machine.pull()).folder).toBe(folder)
    expect((await loadModel(folder)).architecture).toBe('GPTNeoXForCausalLM')
  })
})

describe('progress', () => {
  function clocked(columns: number | null) {
    const written: string[] = []
    let now = 0
    const fractions: number[] = []
    const output = { columns, write: (text: string) => written.push(text) }
    const progress = new HubProgress(
      'org/name',
      output,
      (fraction) => fractions.push(fraction),
      () => now,
    )
    return { progress, written, fractions, pass: (ms: number) => (now += ms) }
  }

  test('in a terminal is one line with bytes, rate and time left', () => {
    const { progress, written, fractions, pass } = clocked(80)
    progress.expect(1_000_000_000)
    progress.had(200_000_000)
    for (let i = 0; i < 40; i++) {
      pass(50)
      progress.add(5_000_000)
    }
    expect(written.at(-1)).toBe('\r\x1b[Korg/name:  40%  400 MB of 1.0 GB  100 MB/s  0:06 left')
    expect(written.length).toBeLessThan(25)
    expect(written.join('')).not.toContain('\n')
    expect(fractions.at(-1)).toBe(0.4)
    progress.note('something')
    expect(written.at(-1)).toBe('\r\x1b[Korg/name: something\n')
    progress.end()
    expect(written.at(-1)).toBe('\n')
  })

  test('never wraps, and elsewhere is a line each 10 s', () => {
    const narrow = clocked(20)
    narrow.progress.expect(10)
    narrow.progress.add(1)
    expect(narrow.written[0]?.replace('\r\x1b[K', '').length).toBeLessThan(20)
    const { progress, written, pass } = clocked(null)
    progress.expect(100_000)
    for (let i = 0; i < 250; i++) {
      pass(100)
      progress.add(400)
    }
    expect(written).toHaveLength(2)
    expect(written.join('')).not.toContain('\x1b')
    expect(written[1]).toBe('org/name:  80%  80.0 kB of 100 kB  4.0 kB/s  0:05 left\n')
  })

  test('sizes are short', () => {
    expect([0, 999, 1000, 99_940, 99_960, 999_600, 2_780_000_000].map(bytesText)).toEqual([
      '0 B',
      '999 B',
      '1.0 kB',
      '99.9 kB',
      '100 kB',
      '1.0 MB',
      '2.8 GB',
    ])
  })
})
