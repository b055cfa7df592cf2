// A stand-in for a Hugging Face hub on loopback: the listing, HEAD and GET of files, large files by redirect to a second server of
// another origin, as the real hub does it; and every fault that a test asks for.

import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

export interface FakeFile {
  bytes: Buffer
  /** kept in Git LFS: its hash is a sha256, and its bytes lie on the other server */
  large: boolean
  /** what the hub announces instead of the truth */
  says?: { size?: number; hash?: string }
}

export interface Seen {
  method: string
  /** 'list', 'file' or 'cdn' */
  kind: string
  /** the file's name */
  name: string
  revision: string
  range: string | undefined
  authorization: string | undefined
}

/** Answers a request in place of the hub, or returns false. */
type Fault = (seen: Seen, response: ServerResponse) => boolean

export interface FakeHub {
  url: string
  cdnUrl: string
  repo: string
  files: Map<string, FakeFile>
  /** commit of each revision */
  revisions: Map<string, string>
  seen: Seen[]
  fault: Fault
  /** the byte of a file where it pauses, until a test says a later one */
  holdAt: number
  /** the other server ignores Range */
  noRanges: boolean
  close(): void
}

export const commit = 'c0ffee0000000000000000000000000000000001'

export function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}

export function gitSha1(bytes: Buffer): string {
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')
}

export function hashOf(file: FakeFile): string {
  return file.large ? sha256(file.bytes) : gitSha1(file.bytes)
}

/** @param files contents by name; names of weights are large files */
export async function startFakeHub(files: Record<string, Buffer | string>, repo = 'org/tiny'): Promise<FakeHub> {
  const hub: FakeHub = {
    url: '',
    cdnUrl: '',
    repo,
    files: new Map(
      Object.entries(files).map(([name, content]) => [
        name,
        { bytes: Buffer.from(content), large: /\.(safetensors|bin|msgpack|onnx)$/.test(name) },
      ]),
    ),
    revisions: new Map([['main', commit]]),
    seen: [],
    fault: () => false,
    holdAt: Number.POSITIVE_INFINITY,
    noRanges: false,
    close() {
      for (const server of servers) {
        server.closeAllConnections()
        server.close()
      }
    },
  }
  const servers = [createServer((request, response) => answer(hub, request, response)), createServer()]
  servers[1]?.on('request', (request, response) => answerCdn(hub, request, response))
  const [url, cdnUrl] = await Promise.all(servers.map(listen))
  hub.url = url as string
  hub.cdnUrl = cdnUrl as string
  onTestFinished(() => hub.close())
  return hub
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

function note(hub: FakeHub, kind: string, request: IncomingMessage, name: string, revision: string): Seen {
  const { range, authorization } = request.headers
  const seen = { method: request.method ?? '', kind, name, revision, range, authorization }
  hub.seen.push(seen)
  return seen
}

function answer(hub: FakeHub, request: IncomingMessage, response: ServerResponse): void {
  const path = request.url ?? ''
  const list = /^\/api\/models\/([^/]+\/[^/]+)\/revision\/([^/?]+)$/.exec(path)
  const file = /^\/([^/]+\/[^/]+)\/resolve\/([^/]+)\/([^?]+)$/.exec(path)
  const [, repo = '', encoded = '', name = ''] = list ?? file ?? []
  const revision = decodeURIComponent(encoded)
  if (hub.fault(note(hub, list ? 'list' : 'file', request, decodeURIComponent(name), revision), response)) return
  const fail = (status: number, code: string) => response.writeHead(status, { 'x-error-code': code }).end(code)
  if (repo !== hub.repo) return void fail(401, 'RepoNotFound') // what the real one says to strangers
  const sha = hub.revisions.get(revision) ?? [...hub.revisions.values()].find((value) => value === revision)
  if (sha === undefined) return void fail(404, 'RevisionNotFound')
  if (list) {
    const siblings = [...hub.files.keys()].map((rfilename) => ({ rfilename }))
    return void response.setHeader('content-type', 'application/json').end(JSON.stringify({ id: repo, sha, siblings }))
  }
  const found = hub.files.get(decodeURIComponent(name))
  if (!found) return void fail(404, 'EntryNotFound')
  const hash = `"${found.says?.hash ?? hashOf(found)}"`
  const size = String(found.says?.size ?? found.bytes.length)
  response.setHeader('x-repo-commit', sha)
  if (found.large) {
    response.setHeader('x-linked-etag', hash).setHeader('x-linked-size', size).setHeader('etag', '"not-this-one"')
    response.writeHead(302, { location: `${hub.cdnUrl}/${name}?signature=secret` }).end()
  } else if (request.method === 'HEAD') {
    response.writeHead(200, { etag: `W/${hash}`, 'content-length': size }).end()
  } else {
    send(hub, response, found, request)
  }
}

function answerCdn(hub: FakeHub, request: IncomingMessage, response: ServerResponse): void {
  const name = decodeURIComponent((request.url ?? '').slice(1).split('?')[0] ?? '')
  if (hub.fault(note(hub, 'cdn', request, name, ''), response)) return
  const file = hub.files.get(name)
  if (file) send(hub, response, file, request)
  else response.writeHead(404).end()
}

function send(hub: FakeHub, response: ServerResponse, { bytes }: FakeFile, request: IncomingMessage): void {
  const from = hub.noRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0)
  if (from > 0) response.writeHead(206, { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` })
  if (from === 0) response.setHeader('content-length', bytes.length)
  let at = from
  const more = () => {
    const end = Math.min(bytes.length, hub.holdAt)
    if (end > at) response.write(bytes.subarray(at, end))
    at = Math.max(at, end)
    if (at < bytes.length) return
    clearInterval(timer)
    response.end()
  }
  const timer = setInterval(more, 10)
  response.on('close', () => clearInterval(timer))
  more()
}

/** Sends the first bytes of a file and cuts the connection. */
export function cutAfter(hub: FakeHub, seen: Seen, response: ServerResponse, count: number): void {
  const { bytes } = hub.files.get(seen.name) as FakeFile
  const from = Number(/^bytes=(\d+)-$/.exec(seen.range ?? '')?.[1] ?? 0)
  const body = bytes.subarray(from)
  response.writeHead(from > 0 ? 206 : 200, {
    'content-length': body.length,
    ...(from > 0 ? { 'content-range': `bytes ${from}-${bytes.length - 1}/${bytes.length}` } : {}),
  })
  response.write(body.subarray(0, count), () => response.destroy())
}
