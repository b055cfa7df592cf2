// Stream = non-stream, whatever the tokens, the stop strings and the log-probabilities.

import { expect, test } from 'vitest'
import type { ScriptLine } from '../../src/engine/fake.js'
import { bytesOf, EOS, seededRandom, word } from '../generation/fake_model.js'
import { startFakeServer } from './fake_server.js'

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
    logprobs: { tokens: string[]; content: unknown[] } | null
  }[]
  usage?: unknown
}

const endpoints = {
  '/v1/completions': {
    body: { prompt: 'x', logprobs: 2, max_tokens: 60 },
    read: ({ choices }: Json): Choice[] =>
      choices.map(({ index, text, finish_reason, logprobs }) => ({
        ...{ index, text, finish_reason },
        logprobs: logprobs?.tokens ?? [],
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
        script = [...ids.slice(0, end), EOS].map((token) => ({ token, logprob: -1, top: [{ token, logprob: -1 }] }))
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
        // And the text is right: of the decoded bytes, what stands before the first stop string that is complete.
        const decoded = Buffer.from(ids.slice(0, end)).toString()
        const list = stop === undefined ? [] : [stop].flat()
        const cuts = list.map((each) => [decoded.indexOf(each), each.length] as const).filter(([at]) => at >= 0)
        const cut = cuts.sort(([a, al], [b, bl]) => a + al - b - bl)[0]
        expect(streamed.get(0)?.text).toBe(cut ? decoded.slice(0, cut[0]) : decoded)
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
