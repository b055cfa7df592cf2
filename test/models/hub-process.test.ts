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

/** Only ends what would never end, on the slowest machine. */
const timeout = 100_000
const until = (test: () => boolean) => vi.waitUntil(test, { timeout, interval: 5 })

function sizeOf(file: string): number {
  return existsSync(file) ? statSync(file).size : 0
}

async function hubOf(size: number): Promise<{ hub: FakeHub; cache: string; blob: string }> {
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
    const { hub, cache, blob } = await hubOf(size)
    hub.holdAt = 0
    for (let kill = 1; kill <= 5; kill++) {
      hub.holdAt += 600_001
      const pulled = new Parley(hub, cache, 'pull', 'org/tiny')
      await until(() => sizeOf(`${blob}.incomplete`) === hub.holdAt)
      await pulled.killed()
      // What was written stays.
      expect(sizeOf(`${blob}.incomplete`)).toBe(hub.holdAt)
      expect(existsSync(join(cache, 'models--org--tiny', 'refs', 'main'))).toBe(false)
    }
    hub.holdAt = Number.POSITIVE_INFINITY
    const pulled = new Parley(hub, cache, 'pull', 'org/tiny')
    expect([await pulled.exited, pulled.stderr]).toEqual([
      0,
      expect.stringContaining('org/tiny: 100%  4.0 MB of 4.0 MB'),
    ])
    expectWhole(hub, pulled)
    const ranges = hub.seen.filter(({ kind }) => kind === 'cdn').map(({ range }) => Number(range?.slice(6, -1) ?? 0))
    expect(ranges).toEqual([0, 600_001, 1_200_002, 1_800_003, 2_400_004, 3_000_005])
  })

  test('twice at once downloads once', async () => {
    const { hub, cache, blob } = await hubOf(600_000)
    hub.holdAt = 300_000
    const first = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => sizeOf(`${blob}.incomplete`) > 0)
    const second = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => second.stderr.includes('another process downloads model.safetensors; waiting for it'))
    hub.holdAt = Number.POSITIVE_INFINITY
    expect([await first.exited, await second.exited]).toEqual([0, 0])
    expect(hub.seen.filter(({ kind }) => kind === 'cdn')).toHaveLength(1)
    for (const pulled of [first, second]) expectWhole(hub, pulled)
  })

  test('whose holder of the lock is killed goes on at once', async () => {
    const { hub, cache, blob } = await hubOf(3_000_000)
    hub.holdAt = 1_000_000
    const holder = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => sizeOf(`${blob}.incomplete`) === hub.holdAt)
    const waiting = new Parley(hub, cache, 'pull', 'org/tiny')
    await until(() => waiting.stderr.includes('another process downloads model.safetensors; waiting for it'))
    await holder.killed()
    hub.holdAt = Number.POSITIVE_INFINITY
    expect(await waiting.exited).toBe(0)
    expectWhole(hub, waiting)
    expect(hub.seen.at(-1)?.range).toBe('bytes=1000000-')
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
    const { hub, cache } = await hubOf(8)
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
    hub.holdAt = Math.floor((hub.files.get(weights)?.bytes.length ?? 0) / 2)
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
    await expect.poll(ready, { timeout }).toMatchObject({
      status: 503,
      text: expect.stringMatching(/The model is downloading \([4-9]\d%\)/),
    })
    hub.holdAt = Number.POSITIVE_INFINITY
    await expect.poll(ready, { timeout }).toMatchObject({ status: 200 })
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
