// Every kind of weight file, served: the completion is the reference's.

import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { weightKinds } from '../models/scratch.js'
import { startRealServer } from './real_server.js'

interface Golden {
  prompts: { prompt: number[]; logprobs: number[] }[]
}

test.each(Object.entries(weightKinds))('%s', async (kind, makeFolder) => {
  const name = kind === 'sharded safetensors' ? 'neox-sequential' : 'neox-parallel'
  const golden: Golden = JSON.parse(readFileSync(new URL(`../models/goldens/${name}.json`, import.meta.url), 'utf8'))
  const url = await startRealServer(makeFolder())
  for (const { prompt, logprobs } of golden.prompts) {
    const response = await fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt, max_tokens: 64, temperature: 0, ignore_eos: true, logprobs: 0 }),
    })
    const answer = (await response.json()) as { choices: { logprobs: { token_logprobs: number[] } }[] }
    const found = answer.choices[0]?.logprobs.token_logprobs ?? []
    expect(found).toHaveLength(logprobs.length)
    for (const [i, logprob] of logprobs.entries()) expect(found[i]).toBeCloseTo(logprob, 3)
  }
})
