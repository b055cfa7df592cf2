// Files and batches with the real client: mistakes stay in their lines, a restart goes on.

import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI, { toFile } from 'openai'
import OpenAI5 from 'openai-5'
import { expect, onTestFinished, test } from 'vitest'
import type { Script } from '../../src/engine/fake.js'
import { answeredIds } from '../../src/http/batch_lines.js'
import { maxBodyBytes } from '../../src/http/body.js'
import { EOS, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

function folderOfTest(): string {
  const folder = mkdtempSync(join(tmpdir(), 'parley-files-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return folder
}

function line(custom_id: string, body: object, more: object = {}): string {
  return JSON.stringify({ custom_id, method: 'POST', url: '/v1/completions', body, ...more })
}

const upload = async (client: OpenAI, text: string | Buffer) =>
  client.files.create({ purpose: 'batch', file: await toFile(Buffer.from(text), 'in.jsonl') })

async function finished(client: OpenAI, id: string) {
  await expect
    .poll(async () => (await client.batches.retrieve(id)).status)
    .toMatch(/completed|failed|cancelled|expired/)
  return client.batches.retrieve(id)
}

async function linesOf(
  client: OpenAI,
  id: string | undefined,
): Promise<{ custom_id: string; response: { status_code: number } }[]> {
  if (id === undefined) return []
  const text = await (await client.files.content(id)).text()
  return text
    .trimEnd()
    .split('\n')
    .map((each) => JSON.parse(each))
}

for (const [name, Client] of [
  ['openai', OpenAI],
  ['openai, its previous major', OpenAI5 as unknown as typeof OpenAI],
] as const) {
  test(`${name}: upload, list, read, delete`, async () => {
    const folder = folderOfTest()
    const { url } = await startFakeServer({ storage: { folder, limit: 1e6 } })
    const client = new Client({ baseURL: `${url}/v1`, apiKey: 'none', maxRetries: 0 })
    const text = 'é'.repeat(100_000)
    const file = await upload(client, text)
    expect(file).toMatchObject({
      id: expect.stringMatching(/^file-[0-9a-f]{32}$/),
      object: 'file',
      bytes: 200_000,
      filename: 'in.jsonl',
      purpose: 'batch',
      status: 'processed',
    })
    expect(await client.files.retrieve(file.id)).toMatchObject({ id: file.id })
    expect(await (await client.files.content(file.id)).text()).toBe(text)
    const ids: string[] = []
    for await (const { id } of client.files.list()) ids.push(id)
    expect(ids).toEqual([file.id])
    expect(await client.files.delete(file.id)).toMatchObject({ id: file.id, deleted: true })
    await expect(client.files.retrieve(file.id)).rejects.toMatchObject({ status: 404, code: 'file_not_found' })
    expect(readdirSync(folder)).toEqual([])
  })
}

test('a batch: every line answered, what is wrong with one stays in it', async () => {
  const { client, engine } = await startFakeServer({ storage: { folder: folderOfTest(), limit: 1e6 } })
  const file = await upload(
    client,
    [
      line('good', { prompt: 'a' }),
      line('wrong', { prompt: 'a', temperature: 9 }),
      '',
      line('other', { model: 'gpt-9', prompt: 'a' }),
      line('last', { prompt: 'b' }),
    ].join('\n'),
  )
  const created = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/completions',
    completion_window: '24h',
    metadata: { night: 'yes' },
  })
  expect(created).toMatchObject({ object: 'batch', status: 'validating', metadata: { night: 'yes' } })
  const batch = await finished(client, created.id)
  expect(batch).toMatchObject({ status: 'completed', request_counts: { total: 4, completed: 2, failed: 2 } })
  const good = await linesOf(client, batch.output_file_id)
  expect(good.map(({ custom_id }) => custom_id).sort()).toEqual(['good', 'last'])
  expect(good[0]).toMatchObject({
    id: expect.stringMatching(/^batch_req_/),
    response: { status_code: 200, request_id: expect.stringMatching(/^req_/), body: { object: 'text_completion' } },
    error: null,
  })
  const wrong = await linesOf(client, batch.error_file_id)
  expect(wrong.map(({ custom_id, response }) => [custom_id, response.status_code]).sort()).toEqual([
    ['other', 404],
    ['wrong', 400],
  ])
  expect(engine.seen.length).toBe(2)
  const listed: string[] = []
  for await (const { id } of client.batches.list()) listed.push(id)
  expect(listed).toEqual([batch.id])
})

test('chats, responses and embeddings are batches too', async () => {
  const script: Script = (request) => [{ token: EOS, pooled: Float32Array.of(request.prompt.length) }]
  const { client } = await startFakeServer({ script, storage: { folder: folderOfTest(), limit: 1e6 } })
  for (const [url, body] of [
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }] }],
    ['/v1/responses', { input: 'x' }],
    ['/v1/embeddings', { input: 'x' }],
  ] as const) {
    const file = await upload(client, line('a', body, { url }))
    const { id } = await client.batches.create({ input_file_id: file.id, endpoint: url, completion_window: '24h' })
    expect(await finished(client, id)).toMatchObject({ status: 'completed', request_counts: { completed: 1 } })
  }
})

test('a file that is no batch fails as a whole, with its lines', async () => {
  const { client, engine } = await startFakeServer({ storage: { folder: folderOfTest(), limit: 1e7 } })
  const run = async (...lines: (string | Buffer)[]) => {
    const file = await upload(client, lines.length === 1 && lines[0] ? lines[0] : lines.join('\n'))
    const endpoint = '/v1/completions'
    const { id } = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: '24h' })
    const { status, errors } = await finished(client, id)
    return [status, errors?.data?.map(({ code, line: at, param }) => [code, at, param])]
  }
  expect(await run(line('a', {}), '{', '[]', line('a', {}), line('b', {}, { url: '/v1/x' }))).toEqual([
    'failed',
    [
      ['invalid_json_line', 2, null],
      ['invalid_json_line', 3, null],
      ['duplicate_custom_id', 4, 'custom_id'],
      ['invalid_request', 5, 'url'],
    ],
  ])
  expect(await run('{"custom_id":""}', line('c', { stream: true }), line('d', {}, { method: 'GET' }))).toEqual([
    'failed',
    [
      ['invalid_request', 1, 'custom_id'],
      ['invalid_request', 2, 'body.stream'],
      ['invalid_request', 3, 'method'],
    ],
  ])
  const deep = '['.repeat(200)
  const long = line('b', { prompt: 'x'.repeat(maxBodyBytes) })
  expect(await run(line('a', {}), long, `{"custom_id":"c","body":${deep}`)).toEqual([
    'failed',
    [
      ['invalid_json_line', 2, null],
      ['invalid_json_line', 3, null],
    ],
  ])
  const latin1 = Buffer.from(line('a', { prompt: 'é' }), 'latin1')
  expect(await run(Buffer.concat([latin1, Buffer.from('\n{}')]))).toEqual([
    'failed',
    [
      ['invalid_json_line', 1, null],
      ['invalid_request', 2, 'custom_id'],
    ],
  ])
  expect(await run(' \t\r\n\n')).toEqual(['failed', [['empty_file', 1, 'input_file_id']]])
  expect(await run(...Array(150).fill('x'))).toMatchObject(['failed', { length: 100 }])
  expect(engine.seen).toEqual([])
})

test('a batch that is cancelled keeps what it has done', async () => {
  const { client, engine } = await startFakeServer({
    storage: { folder: folderOfTest(), limit: 1e6 },
    async *script({ prompt }) {
      if (prompt[0] === 98) await new Promise(() => {})
      yield EOS
    },
  })
  const file = await upload(client, [line('a', { prompt: 'a' }), line('b', { prompt: 'b' })].join('\n'))
  const endpoint = '/v1/completions'
  const { id } = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: '24h' })
  await expect.poll(async () => (await client.batches.retrieve(id)).request_counts?.completed).toBe(1)
  await expect(client.files.delete(file.id)).rejects.toMatchObject({ status: 400, code: 'file_in_use' })
  expect((await client.batches.cancel(id)).status).toBe('cancelling')
  const batch = await finished(client, id)
  expect(batch.status).toBe('cancelled')
  expect((await linesOf(client, batch.output_file_id)).map(({ custom_id }) => custom_id)).toEqual(['a'])
  await engine.until(({ seen }) => seen.every(({ state }) => state !== 'running'))
  await expect(client.batches.cancel(id)).rejects.toMatchObject({ status: 400 })
  await client.files.delete(file.id)
})

test('a server that ends in the middle goes on at its next start, and answers no line twice', async () => {
  const folder = folderOfTest()
  const storage = { folder, limit: 1e6 }
  const first = await startFakeServer({
    storage,
    async *script({ prompt }) {
      if (prompt[0] === 98) await new Promise(() => {})
      yield word('Hello')
      yield EOS
    },
  })
  const names = ['a', 'b', 'c', 'd']
  const file = await upload(first.client, names.map((name) => line(name, { prompt: name })).join('\n'))
  const endpoint = '/v1/completions'
  const { id } = await first.client.batches.create({ input_file_id: file.id, endpoint, completion_window: '24h' })
  await expect.poll(async () => (await first.client.batches.retrieve(id)).request_counts?.completed).toBe(3)
  first.state.batches?.stop()
  await first.engine.until(({ seen }) => seen.every(({ state }) => state !== 'running'))
  // As a crash would leave it: half a line, and an upload that never ended.
  const open = readdirSync(folder).filter((name) => /^file-[0-9a-f]+$/.test(name) && name !== file.id)
  for (const name of open) appendFileSync(join(folder, name), '{"id":"batch_req_x","custom_')
  appendFileSync(join(folder, `file-${'0'.repeat(32)}`), 'half')
  const second = await startFakeServer({ storage })
  const batch = await finished(second.client, id)
  expect(batch).toMatchObject({ status: 'completed', request_counts: { total: 4, completed: 4, failed: 0 } })
  const answered = await linesOf(second.client, batch.output_file_id)
  expect(answered.map(({ custom_id }) => custom_id).sort()).toEqual(names)
  expect(second.engine.seen.map(({ prompt }) => prompt[0])).toEqual([98])
  expect(readdirSync(folder)).not.toContain(`file-${'0'.repeat(32)}`)
})

test('so many bytes and no more', async () => {
  const folder = folderOfTest()
  const { client, state } = await startFakeServer({ storage: { folder, limit: 1000 } })
  await expect(upload(client, 'x'.repeat(2_000_000))).rejects.toMatchObject({ status: 413, code: 'files_full' })
  expect(readdirSync(folder)).toEqual([])
  expect(state.files?.usedBytes).toBe(0)
  await upload(client, 'x'.repeat(900))
  await expect(upload(client, 'x'.repeat(101))).rejects.toMatchObject({ status: 413 })
  expect(state.files?.usedBytes).toBe(900)
})

test('what is wrong with an upload or a batch is told', async () => {
  const { url, post, client } = await startFakeServer({ storage: { folder: folderOfTest(), limit: 1e6 } })
  const form = (fields: Record<string, string | Blob>) => {
    const body = new FormData()
    for (const [name, value] of Object.entries(fields)) body.append(name, value)
    return fetch(`${url}/v1/files`, { method: 'POST', body })
  }
  const told = async (response: Response) => {
    const { error } = (await response.json()) as { error: { code: string; param: string | null } }
    return [response.status, error.code, error.param]
  }
  const file = new Blob(['x'])
  expect(await told(await form({ file }))).toEqual([400, 'missing_required_parameter', 'purpose'])
  expect(await told(await form({ purpose: 'fine-tune', file }))).toEqual([400, 'unsupported_value', 'purpose'])
  expect(await told(await form({ purpose: 'batch' }))).toEqual([400, 'missing_required_parameter', 'file'])
  const expiring = { purpose: 'batch', 'expires_after[anchor]': 'created_at', 'expires_after[seconds]': '3600', file }
  expect(await told(await form(expiring))).toEqual([400, 'unsupported_parameter', 'expires_after'])
  expect(await told(await post('/v1/files', {}))).toEqual([415, 'unsupported_media_type', null])
  for (const type of ['multipart/form-data; boundary=x', 'multipart/form-data; x=y']) {
    expect((await told(await post('/v1/files', 'nonsense', { headers: { 'content-type': type } })))[0]).toBe(400)
  }
  const { id: input_file_id } = await upload(client, line('a', { prompt: 'x' }))
  const good = { input_file_id, endpoint: '/v1/completions', completion_window: '24h' }
  const create = async (more: object) => told(await post('/v1/batches', { ...good, ...more }))
  expect(await create({ input_file_id: 'file-x' })).toEqual([404, 'file_not_found', 'input_file_id'])
  expect(await create({ input_file_id: '../../etc/passwd' })).toEqual([404, 'file_not_found', 'input_file_id'])
  expect(await create({ endpoint: '/v1/moderations' })).toEqual([400, 'unsupported_value', 'endpoint'])
  expect(await create({ completion_window: '1h' })).toEqual([400, 'invalid_value', 'completion_window'])
  expect(await create({ completion_window: null })).toEqual([400, 'missing_required_parameter', 'completion_window'])
  expect(await create({ output_expires_after: {} })).toEqual([400, 'unsupported_parameter', 'output_expires_after'])
  expect((await fetch(`${url}/v1/files/..%2f..%2fetc%2fpasswd/content`)).status).toBe(404)
  expect((await fetch(`${url}/v1/batches/batch_x`)).status).toBe(404)
  const without = await startFakeServer()
  expect(await told(await fetch(`${without.url}/v1/files`))).toEqual([404, 'files_disabled', null])
  expect(await told(await without.post('/v1/batches', good))).toEqual([404, 'files_disabled', null])
})

test('a list of files has all of them unless told, up to 10,000', async () => {
  const { url, client } = await startFakeServer({ storage: { folder: folderOfTest(), limit: 1e6 } })
  for (let i = 0; i < 21; i++) await upload(client, 'x')
  const list = async (query: string) => {
    const { data, has_more } = (await (await fetch(`${url}/v1/files${query}`)).json()) as Record<string, unknown[]>
    return [data?.length, has_more]
  }
  expect(await list('')).toEqual([21, false])
  expect(await list('?limit=20')).toEqual([20, true])
  expect(await list('?limit=10000')).toEqual([21, false])
  expect((await fetch(`${url}/v1/files?limit=10001`)).status).toBe(400)
})

test('a line ends at its newline and nowhere else', async () => {
  const { client, engine } = await startFakeServer({ storage: { folder: folderOfTest(), limit: 1e6 } })
  const text = 'a\u2028b\u2029c\u0085d é😀'
  const long = 'x'.repeat(70_000) // longer than what is read from the disk at once
  // With the byte order mark that editors of Windows begin a file with.
  const lines = `\ufeff${line('1', { prompt: text })}\r\n\n${line('2', { prompt: 'y', user: long })}`
  const file = await upload(client, lines)
  const endpoint = '/v1/completions'
  const { id } = await client.batches.create({ input_file_id: file.id, endpoint, completion_window: '24h' })
  expect(await finished(client, id)).toMatchObject({ status: 'completed', request_counts: { completed: 2, failed: 0 } })
  const prompts = engine.seen.map(({ prompt }) => Buffer.from(prompt).toString())
  expect(prompts.sort()).toEqual([text, 'y'].sort())
})

test('answers that were written are read back; what was cut off in the middle of a character goes', async () => {
  const path = join(folderOfTest(), 'answers')
  expect(await answeredIds(path)).toEqual([])
  const whole = Buffer.from(`${JSON.stringify({ custom_id: 'a\u2028' })}\n${JSON.stringify({ custom_id: 'b' })}\n`)
  writeFileSync(path, Buffer.concat([whole, Buffer.from(JSON.stringify({ custom_id: 'é' })).subarray(0, 15)]))
  expect(await answeredIds(path)).toEqual(['a\u2028', 'b'])
  expect(readFileSync(path)).toEqual(whole)
  expect(await answeredIds(path)).toEqual(['a\u2028', 'b'])
})
