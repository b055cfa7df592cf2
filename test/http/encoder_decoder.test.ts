// An encoder-decoder through HTTP: the prompt is the encoder's input, the completion is the decoder's output.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { copyOf, fixture } from '../models/scratch.js'
import { startRealServer } from './real_server.js'

interface Golden {
  prompts: { prompt: number[]; greedy: number[]; logprobs: number[] }[]
}

interface Answer {
  choices: {
    text: string
    message: { content: string }
    logprobs: { token_logprobs: number[] }
    finish_reason: string
  }[]
  usage: { prompt_tokens: number; completion_tokens: number }
}

const golden: Golden = JSON.parse(readFileSync(new URL('../models/goldens-t5/t5-v1.1.json', import.meta.url), 'utf8'))

function post(url: string, path: string, body: object): Promise<Response> {
  return fetch(url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ temperature: 0, ignore_eos: true, ...body }),
  })
}

async function answer(url: string, path: string, body: object): Promise<Answer> {
  const response = await post(url, path, body)
  expect(response.status).toBe(200)
  return (await response.json()) as Answer
}

/** The texts of a stream's events. */
async function streamed(url: string, path: string, body: object): Promise<string> {
  const text = await (await post(url, path, { ...body, stream: true })).text()
  expect(text.endsWith('data: [DONE]\n\n')).toBe(true)
  let whole = ''
  for (const [, data = ''] of text.matchAll(/^data: (\{.*\})$/gm)) {
    const [choice] = JSON.parse(data).choices
    whole += choice?.text ?? choice?.delta.content ?? ''
  }
  return whole
}

test('completions and chats, whole and streamed, mixed in one batch', async () => {
  const folder = copyOf('t5-v1.1')
  writeFileSync(
    join(folder, 'chat_template.jinja'),
    "{% for message in messages %}{{ message['content'] }}\n{% endfor %}",
  )
  const url = await startRealServer(folder, { max_model_len: 512 })
  const completions = golden.prompts.map(async ({ prompt, logprobs }) => {
    const body = { prompt, max_tokens: 64, logprobs: 0 }
    const { choices, usage } = await answer(url, '/v1/completions', body)
    const found = choices[0]?.logprobs.token_logprobs ?? []
    expect(found).toHaveLength(64)
    for (const [i, logprob] of logprobs.entries()) expect(found[i]).toBeCloseTo(logprob, 3)
    expect(usage).toMatchObject({ prompt_tokens: prompt.length, completion_tokens: 64 })
    expect(choices[0]?.finish_reason).toBe('length')
    expect(await streamed(url, '/v1/completions', body)).toBe(choices[0]?.text)
  })
  const chats = ['Tell me a story.', 'x'].map(async (content) => {
    const body = { messages: [{ role: 'user', content }], max_tokens: 20 }
    const whole = await answer(url, '/v1/chat/completions', body)
    expect(await streamed(url, '/v1/chat/completions', body)).toBe(whole.choices[0]?.message.content)
    // A chat is its rendered text.
    const same = await answer(url, '/v1/completions', { prompt: `${content}\n`, max_tokens: 20 })
    expect(whole.choices[0]?.message.content).toBe(same.choices[0]?.text)
    expect(whole.usage).toEqual(same.usage)
  })
  const choices = answer(url, '/v1/completions', { prompt: golden.prompts[1]?.prompt, n: 3, max_tokens: 64 })
  await Promise.all([...completions, ...chats])
  const texts = (await choices).choices.map(({ text }) => text)
  expect(new Set(texts).size).toBe(1)
})

test("what needs the prompt's tokens as the answer's beginning is refused by name", async () => {
  const url = await startRealServer(fixture('t5-v1.1'))
  for (const [param, more] of Object.entries({
    echo: { echo: true },
    prompt_logprobs: { prompt_logprobs: 0 },
    use_beam_search: { use_beam_search: true },
  })) {
    const response = await post(url, '/v1/completions', { prompt: [5, 6], ...more })
    const message = `'${param}' is not supported for encoder-decoder models yet.`
    expect([response.status, await response.json()]).toMatchObject([400, { error: { param, message } }])
  }
  const nothing = await answer(url, '/v1/completions', { prompt: [5, 6], max_tokens: 0 })
  expect(nothing).toMatchObject({ choices: [{ text: '', finish_reason: 'length' }], usage: { completion_tokens: 0 } })
})
