// Every route but health needs the key, however its path is spelled.

import { connect } from 'node:net'
import { expect, test } from 'vitest'
import { routes } from '../../src/http/routes.js'
import { type FakeServer, json, startFakeServer } from './fake_server.js'

const key = 'secret-key-1234'

/** Sends bytes as they are, so that no client tidies them up. */
function raw(server: FakeServer, request: string): Promise<{ status: number; body: string; head: string }> {
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, '127.0.0.1', () => socket.write(request))
    let text = ''
    socket.setEncoding('utf8').on('data', (data) => {
      text += data
    })
    socket.on('error', reject)
    socket.on('close', () => {
      const [head = '', body = ''] = text.split('\r\n\r\n')
      resolve({ status: Number(/^HTTP\/1\.1 (\d+)/.exec(head)?.[1]), body, head })
    })
  })
}

const get = (target: string, ...headers: string[]) =>
  [
    'GET ',
    target,
    ' HTTP/1.1\r\nhost: x\r\nconnection: close\r\n',
    ...headers.map((header) => `${header}\r\n`),
    '\r\n',
  ].join('')

test('the table of keys', async () => {
  const { url } = await startFakeServer({ apiKey: key })
  const ask = async (authorization?: string) => {
    const response = await fetch(`${url}/v1/models`, authorization === undefined ? {} : { headers: { authorization } })
    return [response.status, (await json(response)).error?.code, response.headers.get('www-authenticate')]
  }
  expect(await ask(`Bearer ${key}`)).toEqual([200, undefined, null])
  expect(await ask(`bearer   ${key}`)).toEqual([200, undefined, null])
  expect(await ask()).toEqual([401, null, 'Bearer'])
  for (const wrong of [
    'Bearer',
    'Bearer x',
    key,
    `Basic ${key}`,
    `Bearer ${key.toUpperCase()}`,
    `Bearer ${key}x`,
    `Bearer ${key.slice(0, -1)}`,
    `Bearer ${key}, Bearer ${key}`,
  ]) {
    expect([wrong, ...(await ask(wrong))]).toEqual([wrong, 401, 'invalid_api_key', 'Bearer'])
  }
  const form = await json(await fetch(`${url}/v1/models`, { headers: { authorization: key } }))
  expect(form.error.message).toBe('The header `Authorization` must be `Bearer <key>`.')
  const response = await fetch(`${url}/v1/models?api_key=${key}`)
  expect(response.status).toBe(401)
  expect(await response.json()).toEqual({
    error: {
      message: 'This server needs an API key. Send it in the header `Authorization: Bearer <key>`.',
      type: 'invalid_request_error',
      param: null,
      code: null,
    },
  })
})

test('without a key on the server every key is welcome', async () => {
  const { url } = await startFakeServer()
  for (const authorization of ['Bearer ', 'Bearer anything', 'Basic x']) {
    expect((await fetch(`${url}/v1/models`, { headers: { authorization } })).status).toBe(200)
  }
})

test('every route needs the key but the documents and those of health', async () => {
  const { url } = await startFakeServer({ apiKey: key })
  const open: string[] = []
  for (const { method, path } of routes) {
    const response = await fetch(url + path.replace(':id{.+}', 'org/fake'), { method })
    if (response.status !== 401) open.push(path)
  }
  expect(open).toEqual(['/openapi.json', '/docs', '/health', '/health/live', '/health/ready'])
})

test('no spelling of a path goes around the key', async () => {
  const server = await startFakeServer({ apiKey: key })
  const inner = ['v1/models', 'v1/models/org/fake', 'metrics', 'v1/completions', 'nothing']
  const spellings = (path: string) => [
    `/${path}`,
    `/${path.replace('v1', '%76%31')}`,
    `/${[...path].map((character) => `%${character.charCodeAt(0).toString(16)}`).join('')}`,
    `/${path.replace('/', '%2f')}`,
    `/${path.replace('/', '//')}`,
    `//${path}`,
    `/./${path}`,
    `/health/../${path}`,
    `/health/%2e%2e/${path}`,
    `/health/..%2f${path}`,
    `/health/live;/../../${path}`,
    `/${path}/`,
    `/${path}?x=/health`,
    `/${path}#/health`,
    `/${path}%00`,
    `/${path}%3f`,
    `/${path.toUpperCase()}`,
    `http://x/${path}`,
    `http://x/health/../${path}`,
    `/health/x/../../${path}`,
  ]
  let asked = 0
  for (const target of inner.flatMap(spellings)) {
    for (const method of ['GET', 'POST', 'HEAD', 'PUT', 'OPTIONS', 'get']) {
      const { status, body } = await raw(server, get(target).replace('GET', method))
      // 400: node or the URL parser refuses the target before anything is looked up.
      expect([target, method, [401, 400].includes(status)]).toEqual([target, method, true])
      expect(body).not.toContain('fake')
      asked++
    }
  }
  expect(asked).toBeGreaterThan(500)
  // The very same spellings do reach the handler with the key, so the test above proves something.
  const { status, body } = await raw(server, get('/%76%31/models', `authorization: Bearer ${key}`))
  expect([status, body.includes('org/fake')]).toEqual([200, true])
})

test('a hostile Host header changes nothing', async () => {
  const server = await startFakeServer({ apiKey: key })
  for (const host of ['x/health', 'x/health?', 'x#', '/health', 'a b', '[::1', 'x:99999', 'user@x', '']) {
    const { status } = await raw(server, `GET /v1/models HTTP/1.1\r\nhost: ${host}\r\nconnection: close\r\n\r\n`)
    expect([host, [400, 401].includes(status)]).toEqual([host, true])
  }
})

test('HTTP/1.0 needs no Host header', async () => {
  const server = await startFakeServer()
  expect(await raw(server, 'GET /health HTTP/1.0\r\n\r\n')).toMatchObject({ status: 200, body: '{"status":"ready"}' })
  const body = '{"prompt":"x","stream":true}'
  const head = `POST /v1/completions HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: ${body.length}`
  const stream = await raw(server, `${head}\r\n\r\n${body}`)
  expect(stream.head).not.toMatch(/transfer-encoding/i)
  expect(stream.body).toMatch(/^data: .*Hello/)
})

test('what node refuses has the same kind of body, and the key is in no log', async () => {
  const server = await startFakeServer({ apiKey: key })
  const bad = await raw(server, 'NONSENSE\r\n\r\n')
  expect([bad.status, JSON.parse(bad.body).error.code]).toEqual([400, 'bad_http'])
  expect(bad.head).toMatch(/x-request-id: req_/)
  const large = await raw(server, get('/health', `x: ${'x'.repeat(20000)}`))
  expect([large.status, JSON.parse(large.body).error.code]).toEqual([431, 'headers_too_large'])
  const host = await raw(server, 'GET /health HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n')
  expect([host.status, JSON.parse(host.body).error.code]).toEqual([400, 'bad_http'])
  await raw(server, get('/v1/models', `authorization: Bearer ${key}`))
  expect(server.logged.length).toBeGreaterThan(0)
  expect(JSON.stringify(server.logged)).not.toContain(key)
})
