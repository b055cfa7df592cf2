// `parley pull` and `parley serve org/name` as processes: killed in the middle, two at once, and over HTTP while they download.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { type FakeHub, hashOf, startFakeHub } from './fake_hub.js'
import { emptyFolder, fixture } from './scratch.js'

const main = fileURLToPath(new URL('../../dist/main.js', import.meta.url))
const weights = 'model.safetensors'

/** A process of Parley that ends with the test. */
class Parley {
  stdout = ''
  stderr = ''
  readonly exited: Promise<number | null>
  readonly process: ChildProcessByStdio<null, Readable, Readable>

  constructor(hub: FakeHub, cache: string, ...words: string[]) {
    this.process = spawn(process.execPath, [main, ...words], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        HF_HOME: cache,
        HF_HUB_CACHE: cache,
        HF_ENDPOINT: hub.url,
        HF_TOKEN: '',
        HF_HUB_OFFLINE: '',
      },
    })
    this.process.stdout.setEncoding('utf8').on('data', (text) => (this.stdout += text))
    this.process.stderr.setEncoding('utf8').on('data', (text) => (this.stderr += text))
    this.exited = new Promise((resolve) => this.process.on('close', resolve))
    onTestFinished(() => void this.process.kill('SIGKILL'))
  }

  async killed(): Promise<void> {
    this.process.kill('SIGKILL')
    await this.exited
  }
}

const until = (test: () => boolean) => vi.waitUntil(test, { timeout: 30_000, interval: 5 })

function sizeOf(file: string): number {
  return existsSync(file) ? statSync(file).size : 0
}

async function slowHub(size: number): Promise<{ hub: FakeHub; cache: string; blob: string }> {
  const bytes = Buffer.alloc(size)
  for (let i = 0; i < size; i += 4) bytes.writeUInt32LE((i * 2654435761) >>> 0, i)
  const hub = await startFakeHub({ 'config.json': '{}', [weights]: bytes })
  const cache = emptyFolder()
  const file = hub.files.get(weights)
  if (!file) throw new Error()
  return { hub, cache, blob: join(cache, 'models--org--tiny', 'blobs', hashOf(file)) }
}

function expectWhole(hub: FakeHub, pulled: Parley): void {
  const folder = pulled.stdout.trim()
  expect(readFileSync(join(folder, weights)).equals(hub.files.get(weights)?.bytes as Buffer)).toBe(true)
  const blobs = readdirSync(join(folder, '..', '..', 'blobs'))
  expect(blobs.filter((name) => name.endsWith('.incomplete'))).toEqual([])
}

describe('parley pull', () => {
  test('killed again and again continues each time where it was', async () => {
    const size = 4_000_000
    const { hub, cache, blob } = await slowHub(size)
    hub.bytesPerSecond = 4_000_000
    let sure = 0
    for (let kill = 1; kill <= 5; kill++) {
      const pulled = new Parley(hub, cache, 'pull', 'org/tiny')
      await until(() => sizeOf(`${blob}.incomplete`) > sure + 300_000)
      await pulled.killed()
      // What was written stays.
      expect(sizeOf(`${blob}.incomplete`)).toBeGreaterThan(sure + 300_000)
      sure = sizeOf(`${blob}.incomplete`)
      expect(sure).toBeLessThan(size)
      expect(existsSync(join(cache, 'models--org--tiny', 'refs', 'main'))).toBe(false)
    }
    hub.bytesPerSecond = 0
    const pulled = new Parley(hub, cache, 'pull', 'org/tiny')
    expect([await pulled.exited, pulled.stderr]).toEqual([
      0,
      expect.stringContaining('org/tiny: 100%  4.0 MB of 4.0 MB'),
    ])
    expectWhole(hub, pulled)
    const ranges = hub.seen.filter(({ kind }) => kind === 'cdn').map(({ range }) => Number(range?.slice(6, -1) ?? 0))
    expect(ranges).toHaveLength(6)
    expect(ranges.toSorted((a, b) => a - b)).toEqual(ranges)
    expect(ranges.at(-1)).toBe(sure)
  })

  test('twice at once downloads once', async () => {
    const { hub, cache, blob } = await slowHub(600_000)
    hub.bytesPerSecond = 1_000_000
    const first = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => sizeOf(`${blob}.incomplete`) > 0)
    const second = new Parley(hub, cache, 'pull', 'org/tiny')
    expect([await first.exited, await second.exited]).toEqual([0, 0])
    expect(hub.seen.filter(({ kind }) => kind === 'cdn')).toHaveLength(1)
    for (const pulled of [first, second]) expectWhole(hub, pulled)
  })

  test('whose holder of the lock is killed goes on at once', async () => {
    const { hub, cache, blob } = await slowHub(3_000_000)
    hub.bytesPerSecond = 500_000
    const holder = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => sizeOf(`${blob}.incomplete`) > 0)
    const waiting = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => waiting.stderr.includes('another process downloads model.safetensors; waiting for it'))
    hub.bytesPerSecond = 0
    await holder.killed()
    expect(await waiting.exited).toBe(0)
    expectWhole(hub, waiting)
    expect(hub.seen.at(-1)?.range).toMatch(/^bytes=\d+-$/)
  })

  test.each<[string, string, number, RegExp]>([
    ['no id', 'tiny', 2, /^parley: pull: expected org\/name or org\/name@revision, got "tiny"\n$/],
    [
      'a model that is not there',
      'org/none',
      1,
      /^parley: org\/none@main: http.* has no such model for the public \(401\)/,
    ],
    ['a revision that is not there', 'org/tiny@v9', 1, /^parley: org\/tiny@v9: .* but no such revision \(404\)\n$/],
  ])('of %s ends with a reason', async (_name, model, code, message) => {
    const { hub, cache } = await slowHub(8)
    const pulled = new Parley(hub, cache, 'pull', model)
    expect([await pulled.exited, pulled.stderr, pulled.stdout]).toEqual([code, expect.stringMatching(message), ''])
  })
})

describe('parley serve org/name', () => {
  const files = Object.fromEntries(
    readdirSync(fixture('neox-parallel')).map((name) => [name, readFileSync(join(fixture('neox-parallel'), name))]),
  )

  test('listens while it downloads, then answers as org/name@revision', async () => {
    const hub = await startFakeHub(files)
    hub.revisions.set('step3000', [...hub.revisions.values()][0] as string)
    let release = () => {}
    hub.fault = (seen, response) => {
      if (seen.kind !== 'cdn') return false
      const bytes = hub.files.get(seen.name)?.bytes as Buffer
      response.writeHead(200, { 'content-length': bytes.length }).write(bytes.subarray(0, bytes.length / 2))
      release = () => response.end(bytes.subarray(bytes.length / 2))
      return true
    }
    const served = new Parley(
      hub,
      emptyFolder(),
      'serve',
      '--model',
      'org/tiny@step3000',
      '--port',
      '0',
      '--threads',
      '1',
    )
    await until(() => /http:\/\/127\.0\.0\.1:\d+/.test(served.stdout))
    const url = /http:\/\/127\.0\.0\.1:\d+/.exec(served.stdout)?.[0]
    const ready = async () => {
      const response = await fetch(`${url}/health/ready`)
      return { status: response.status, text: await response.text() }
    }
    await expect.poll(ready, { timeout: 30_000 }).toMatchObject({
      status: 503,
      text: expect.stringMatching(/The model is downloading \([4-9]\d%\)/),
    })
    release()
    await expect.poll(ready, { timeout: 30_000 }).toMatchObject({ status: 200 })
    const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] }
    expect(data.map(({ id }) => id)).toEqual(['org/tiny@step3000'])
    const completion = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ model: 'org/tiny@step3000', prompt: 'a', max_tokens: 2 }),
    })
    expect(completion.status).toBe(200)
    served.process.kill('SIGTERM')
    expect(await served.exited).toBe(0)
  })

  test('refuses an unknown architecture before its weights come', async () => {
    const hub = await startFakeHub({ ...files, 'config.json': '{"architectures":["StrangeForCausalLM"]}' })
    const served = new Parley(hub, emptyFolder(), 'serve', '--model', 'org/tiny', '--port', '0')
    expect(await served.exited).toBe(1)
    expect(served.stderr).toMatch(/config\.json: architectures: expected a supported one/)
    expect(hub.seen.some(({ kind }) => kind === 'cdn')).toBe(false)
  })
})
