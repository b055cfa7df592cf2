// Stream = non-stream, whatever the tokens, the stop strings and the log-probabilities.

import Anthropic from '@anthropic-ai/sdk'
import type OpenAI from 'openai'
import { expect, test } from 'vitest'
import type { ScriptLine } from '../../src/engine/fake.js'
import { bytesOf, EOS, seededRandom, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

type Response = OpenAI.Responses.Response

interface Choice {
  index: number
  text: string
  finish_reason: string | null
  logprobs: unknown[]
}

/** A whole answer or a chunk of either endpoint. */
interface Json {
  choices: {
    index: number
    finish_reason: string | null
    text: string
    message?: { content: string }
    delta: { content?: string }
    logprobs: {
      tokens: string[]
      token_logprobs: number[]
      top_logprobs: object[]
      text_offset: number[]
      content: unknown[]
    } | null
  }[]
  usage?: unknown
}

const endpoints = {
  '/v1/completions': {
    body: { prompt: 'x', logprobs: 2, max_tokens: 60 },
    read: ({ choices }: Json): Choice[] =>
      choices.map(({ index, text, finish_reason, logprobs }) => ({
        ...{ index, text, finish_reason },
        logprobs: (logprobs?.tokens ?? []).map((token, i) => {
          const { token_logprobs = [], top_logprobs = [], text_offset = [] } = logprobs ?? {}
          return [token, token_logprobs[i], top_logprobs[i], text_offset[i]]
        }),
      })),
  },
  '/v1/chat/completions': {
    body: { messages: [{ role: 'user', content: 'x' }], logprobs: true, top_logprobs: 2, max_tokens: 60 },
    read: ({ choices }: Json): Choice[] =>
      choices.map(({ index, message, delta, finish_reason, logprobs }) => ({
        ...{ index, finish_reason },
        text: (message ?? delta).content ?? '',
        logprobs: logprobs?.content ?? [],
      })),
  },
}

function join(choices: Choice[]): Map<number, Choice> {
  const joined = new Map<number, Choice>()
  for (const { index, text, finish_reason, logprobs } of choices) {
    const choice = joined.get(index) ?? { index, text: '', finish_reason: null, logprobs: [] }
    joined.set(index, choice)
    // After its reason a choice is over.
    expect(choice.finish_reason).toBeNull()
    expect(text).not.toMatch(/\p{Surrogate}/u)
    choice.text += text
    choice.finish_reason = finish_reason
    choice.logprobs.push(...logprobs)
  }
  return joined
}

/** Of the decoded bytes, what stands before the first stop string that is complete. */
function textBefore(bytes: number[], stop: string | string[] | undefined): string {
  const decoded = Buffer.from(bytes).toString()
  const list = stop === undefined ? [] : [stop].flat()
  const cuts = list.map((each) => [decoded.indexOf(each), each.length] as const).filter(([at]) => at >= 0)
  const cut = cuts.sort(([a, al], [b, bl]) => a + al - b - bl)[0]
  return cut ? decoded.slice(0, cut[0]) : decoded
}

for (const [path, { body, read }] of Object.entries(endpoints)) {
  test(`${path}: every end and every stop string at every place`, async () => {
    const text = 'aé😀\n\nbSTOPc'
    const ids = bytesOf(text)
    let script: ScriptLine[] = []
    const server = await startFakeServer({ script: () => script })
    const stops: (string | string[] | undefined)[] = [
      undefined,
      'STOP',
      ['\n\n', 'OPc'],
      '😀',
      ['é😀\n\nbS', 'zz'],
      'a',
    ]
    for (const stop of stops) {
      for (let end = 1; end <= ids.length; end++) {
        script = [...ids.slice(0, end), EOS].map((token, i) => ({ token, logprob: -i, top: [{ token, logprob: -i }] }))
        const request = { ...body, ...(stop === undefined ? {} : { stop }) }
        const whole = (await (await server.post(path, request)).json()) as Json
        const chunks = (await server.stream(path, { ...request, stream_options: { include_usage: true } })) as (
          | Json
          | '[DONE]'
        )[]
        expect(chunks.at(-1)).toBe('[DONE]')
        const usage = (chunks.at(-2) as Json).usage
        const streamed = join(chunks.slice(0, -2).flatMap((chunk) => read(chunk as Json)))
        expect(streamed).toEqual(join(read(whole)))
        expect(usage).toEqual(whole.usage)
        expect(streamed.get(0)?.text).toBe(textBefore(ids.slice(0, end), stop))
      }
    }
  })

  test(`${path}: random tokens, several choices`, async () => {
    const random = seededRandom(11)
    let script: ScriptLine[][] = []
    const server = await startFakeServer({ script: ({ sampling }) => script[sampling.choice ?? 0] ?? [] })
    const pool = [
      ...bytesOf('é😀'),
      0xff,
      word('ST'),
      word('OP'),
      word(' STOP'),
      word('\n\n'),
      word('Hello'),
      83,
      84,
      79,
      80,
    ]
    let stopped = 0
    for (let round = 0; round < 60; round++) {
      script = Array.from({ length: 3 }, () => [
        ...Array.from({ length: Math.floor(random() * 12) }, () => pool[Math.floor(random() * pool.length)] ?? 0),
        EOS,
      ])
      const request = {
        ...body,
        n: 3,
        stop: ['STOP', '\n\n'],
        max_tokens: 8,
        logprobs: undefined,
        top_logprobs: undefined,
      }
      const whole = join(read((await (await server.post(path, request)).json()) as Json))
      const chunks = (await server.stream(path, request)) as Json[]
      expect(join(chunks.slice(0, -1).flatMap(read))).toEqual(whole)
      for (const { text, finish_reason } of whole.values()) {
        expect(text).not.toMatch(/STOP|\n\n/)
        expect(['stop', 'length']).toContain(finish_reason)
        if (finish_reason === 'stop') stopped++
      }
    }
    expect(stopped).toBeGreaterThan(20)
    expect(stopped).toBeLessThan(180)
  })
}

test('responses and messages: every end and every stop string at every place', async () => {
  const ids = bytesOf('aé😀\n\nbSTOPc')
  let script: number[] = []
  const { post, client, url } = await startFakeServer({ script: () => script })
  const anthropic = new Anthropic({ baseURL: url, apiKey: 'none' })
  const ask = { input: 'x', max_output_tokens: 60 }
  const said = { model: 'org/fake', messages: [{ role: 'user' as const, content: 'x' }], max_tokens: 60 }
  for (const stop of [[], ['STOP'], ['\n\n', 'OPc'], ['😀']]) {
    for (let end = 1; end <= ids.length; end++) {
      script = [...ids.slice(0, end), EOS]
      const text = textBefore(ids.slice(0, end), stop)
      const whole = (await (await post('/v1/responses', { ...ask, stop })).json()) as Response
      let deltas = ''
      let last: Response | undefined
      for await (const event of await client.responses.create({ ...ask, ...{ stop }, stream: true })) {
        if (event.type === 'response.output_text.delta') deltas += event.delta
        if (event.type === 'response.completed') last = event.response
      }
      expect([deltas, last?.output_text, whole.output_text]).toEqual([text, text, text])
      expect([last?.status, last?.usage]).toEqual([whole.status, whole.usage])

      const { id: _, ...message } = await anthropic.messages.create({ ...said, stop_sequences: stop })
      const { id: __, ...streamed } = await anthropic.messages.stream({ ...said, stop_sequences: stop }).finalMessage()
      expect(streamed).toEqual({ ...message, ...{ parsed_output: null } })
      expect(message.content).toMatchObject([{ text }])
    }
  }
})

test('an error before the first token has its status; one after it is an event, then the end', async () => {
  let script: ScriptLine[] = [new Error('boom')]
  const server = await startFakeServer({ script: () => script })
  const error = {
    message: 'The engine failed while it worked on this request.',
    type: 'server_error',
    param: null,
    code: 'engine_failure',
  }
  for (const [path, { body }] of Object.entries(endpoints)) {
    script = [new Error('boom')]
    const early = await server.post(path, { ...body, stream: true })
    expect([early.status, early.headers.get('content-type'), await early.json()]).toEqual([
      500,
      'application/json',
      { error },
    ])
    script = [word('Hello'), new Error('boom')]
    const late = await server.stream(path, body)
    expect(late.slice(-2)).toEqual([{ error }, '[DONE]'])
    expect(JSON.stringify(late)).toContain('Hello')
    const plain = await server.post(path, body)
    expect([plain.status, await plain.json()]).toEqual([500, { error }])
  }
  expect(JSON.stringify(server.logged)).toContain('boom')
})
