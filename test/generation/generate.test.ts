import { describe, expect, test } from 'vitest'
import type { PromptLogprobs } from '../../src/engine/engine.js'
import { FakeEngine, type ScriptLine } from '../../src/engine/fake.js'
import { ApiError } from '../../src/errors.js'
import { Encoder } from '../../src/generation/encoder.js'
import { Generation } from '../../src/generation/generate.js'
import { nextLogprobs, scorePrompts } from '../../src/generation/measure.js'
import type { Delta, GenerationParams, Prompt } from '../../src/generation/request.js'
import { Metrics } from '../../src/metrics.js'
import type { Model } from '../../src/models/model.js'
import { bytesOf, EOS, fakeModel, fakeTokenizer, PLAIN_END, type SeenEncode, word } from './fake_model.js'

const params = (more: Partial<GenerationParams> = {}): GenerationParams => ({
  stop: [],
  n: 1,
  max_tokens: 20,
  max_tokens_param: 'max_tokens',
  num_logprobs: undefined,
  seed: 1,
  ...more,
})

function setUp(script: ScriptLine[], model: Model = fakeModel()) {
  const engine = new FakeEngine(() => script)
  const metrics = new Metrics('fake')
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), metrics)
  const run = async (
    more: Partial<GenerationParams> = {},
    prompts: Prompt[] = ['x'],
    signal = new AbortController().signal,
  ) => {
    const deltas: Delta[] = []
    for await (const delta of generation.generate(await generation.prepareCompletion(prompts, params(more)), signal))
      deltas.push(delta)
    return deltas
  }
  return { engine, generation, metrics, run }
}

const textOf = (deltas: Delta[], index = 0) =>
  deltas
    .filter((delta) => delta.index === index)
    .map(({ text }) => text)
    .join('')
const reasonOf = (deltas: Delta[]) => deltas.at(-1)?.finish_reason
const logprob = (token: number) => ({ token, logprob: -0.5, top: [{ token, logprob: -0.5 }] })

test('the end token ends the text and adds none, special or not', async () => {
  for (const end of [EOS, PLAIN_END]) {
    const deltas = await setUp([word('Hello'), word(' world'), end]).run()
    expect(textOf(deltas)).toBe('Hello world')
    expect(deltas).toHaveLength(3) // one delta a token: that is how tokens are counted
    expect(deltas.map(({ finish_reason }) => finish_reason)).toEqual([null, null, 'stop'])
  }
})

test('special tokens in the middle add no text; with ignore_eos that goes for the end token too', async () => {
  const deltas = await setUp([word('Hello'), EOS, word(' world')]).run({ ignore_eos: true, max_tokens: 3 })
  expect([textOf(deltas), reasonOf(deltas)]).toEqual(['Hello world', 'length'])
})

test('a character that max_tokens cuts off becomes U+FFFD', async () => {
  const deltas = await setUp([0x61, 0xf0, 0x9f, 0x98]).run({ max_tokens: 4 })
  expect([textOf(deltas), reasonOf(deltas)]).toEqual(['a\ufffd', 'length'])
})

test('a stop string cuts the text, cancels the request in the engine, and may span tokens', async () => {
  const { engine, run } = setUp([word('Hello'), word('ST'), word('OP'), word(' world')])
  const deltas = await run({ stop: ['STOP'] })
  expect([textOf(deltas), reasonOf(deltas), deltas.length]).toEqual(['Hello', 'stop', 3])
  expect(engine.seen[0]).toMatchObject({ state: 'cancelled', num_generated: 3 })
})

test('a stop string that the very last token completes is a stop, not a length', async () => {
  const deltas = await setUp([word('Hello'), word('ST'), word('OP')]).run({ stop: ['STOP'], max_tokens: 3 })
  expect([textOf(deltas), reasonOf(deltas)]).toEqual(['Hello', 'stop'])
})

test('what only looked like a stop string comes at the end', async () => {
  const deltas = await setUp([word('Hello'), word('ST'), EOS]).run({ stop: ['STOP'] })
  expect(deltas.map(({ text }) => text)).toEqual(['Hello', '', 'ST'])
})

test('tokens are shown when their text is, and those of a stop string never', async () => {
  const script = [word('Hello'), word('ST'), word('OP'), word(' world')].map(logprob)
  const stopped = await setUp(script).run({ stop: ['STOP'], num_logprobs: 1 })
  expect(stopped.map(({ text, tokens }) => [text, ...tokens.map((token) => token.text)])).toEqual([
    ['Hello', 'Hello'],
    [''],
    [''],
  ])
  const whole = await setUp([...script, logprob(EOS)]).run({ num_logprobs: 1 })
  expect(whole.flatMap(({ tokens }) => tokens.map((token) => token.text))).toEqual([
    'Hello',
    'ST',
    'OP',
    ' world',
    '<|endoftext|>',
  ])
  // " STOP" begins before the stop string: part of its text is kept, so it is shown.
  const partly = await setUp([word('Hello'), word(' STOP'), word(' world')].map(logprob)).run({
    stop: ['STOP'],
    num_logprobs: 1,
  })
  expect(textOf(partly)).toBe('Hello ')
  expect(partly.flatMap(({ tokens }) => tokens.map((token) => token.text))).toEqual(['Hello', ' STOP'])
})

test('offsets count code points, and the bytes of one character share its start', async () => {
  const script = [word('😀'), ...bytesOf('é'), ...bytesOf('😀'), 0x7a, EOS].map(logprob)
  const deltas = await setUp(script).run({ num_logprobs: 0 })
  const tokens = deltas.flatMap((delta) => delta.tokens)
  expect(tokens.map(({ offset }) => offset)).toEqual([0, 1, 1, 2, 2, 2, 2, 3, 4])
  expect(tokens.map(({ text }) => text)).toEqual(['😀', null, null, null, null, null, null, 'z', '<|endoftext|>'])
  expect([...(tokens[1]?.bytes ?? [])]).toEqual([0xc3])
})

test('log-probabilities are finite numbers', async () => {
  const deltas = await setUp([
    { token: 97, logprob: Number.NEGATIVE_INFINITY, top: [{ token: 98, logprob: -1e6 }] },
  ]).run({
    num_logprobs: 1,
    max_tokens: 1,
  })
  expect(deltas[0]?.tokens[0]).toMatchObject({ logprob: -9999, top: [{ logprob: -9999 }] })
})

test('n and several prompts: index = prompt * n + i, one seed, choice i', async () => {
  const { engine, run } = setUp([word('Hello'), EOS])
  const deltas = await run({ n: 2, seed: 5 }, ['a', [98, 99], 'd'])
  expect(new Set(deltas.map(({ index }) => index))).toEqual(new Set([0, 1, 2, 3, 4, 5]))
  for (let index = 0; index < 6; index++) expect(textOf(deltas, index)).toBe('Hello')
  expect(engine.seen.map(({ prompt, sampling }) => [[...prompt], sampling.seed, sampling.choice])).toEqual([
    [[97], 5, 0],
    [[97], 5, 1],
    [[98, 99], 5, 0],
    [[98, 99], 5, 1],
    [[100], 5, 0],
    [[100], 5, 1],
  ])
})

test('without a seed every request draws its own, and all its choices share it', async () => {
  const { engine, run } = setUp([EOS])
  await run({ seed: undefined, n: 2 })
  await run({ seed: undefined })
  const seeds = engine.seen.map(({ sampling }) => sampling.seed ?? -1)
  expect(seeds[0]).toBe(seeds[1])
  expect(seeds[0]).not.toBe(seeds[2])
  for (const seed of seeds) expect(Number.isSafeInteger(seed) && seed >= 0).toBe(true)
})

test("what the request leaves out comes from the model's generation_config.json, then from the neutral defaults", async () => {
  const sampling = async (more: Partial<GenerationParams>, model: Model) => {
    const { engine, run } = setUp([EOS], model)
    await run(more)
    return engine.seen[0]?.sampling
  }
  const generationDefaults = { temperature: 0.7, top_p: 0.9, top_k: 40, min_p: 0.1, repetition_penalty: 1.1 }
  const tuned = fakeModel({ generationDefaults })
  expect(await sampling({}, fakeModel())).toMatchObject({
    temperature: 1,
    top_p: 1,
    top_k: 0,
    min_p: 0,
    repetition_penalty: 1,
    num_logprobs: -1,
  })
  expect(await sampling({}, tuned)).toMatchObject(generationDefaults)
  expect(await sampling({ temperature: 0, top_p: 1, top_k: -1, min_p: 0 }, tuned)).toMatchObject({
    temperature: 0,
    top_p: 1,
    top_k: 0,
    min_p: 0,
  })
})

test('a chat that says no length is as long as generation_config.json says, another as long as it says', async () => {
  const model = fakeModel({ generationDefaults: { max_tokens: 30 } })
  const engine = new FakeEngine(() => [EOS])
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const messages = [{ role: 'user' as const, content: 'x' }]
  const silent = params({ max_tokens: undefined })
  expect((await generation.prepareChat(messages, silent)).max_tokens).toEqual([30])
  expect((await generation.prepareChat(messages, params({ max_tokens: 40 }))).max_tokens).toEqual([40])
  expect((await generation.prepareCompletion(['x'], silent)).max_tokens).toEqual([16])
})

test('aborting ends the stream quietly and the request in the engine', async () => {
  const engine = new FakeEngine(async function* () {
    yield word('Hello')
    await new Promise(() => {})
  })
  const model = fakeModel()
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const controller = new AbortController()
  const deltas = generation.generate(await generation.prepareCompletion(['x'], params({ n: 3 })), controller.signal)
  await deltas.next()
  controller.abort()
  expect(engine.seen.map(({ state }) => state)).toEqual(['cancelled', 'cancelled', 'cancelled'])
  const rest: Delta[] = []
  for await (const delta of deltas) rest.push(delta)
  expect(rest.length).toBeLessThanOrEqual(2)
})

test('leaving the loop cancels all choices', async () => {
  const { engine, generation } = setUp(Array(20).fill(97))
  for await (const _ of generation.generate(
    await generation.prepareCompletion(['x'], params({ n: 2 })),
    new AbortController().signal,
  ))
    break
  expect(engine.seen.map(({ state }) => state)).toEqual(['cancelled', 'cancelled'])
})

test('one failing choice ends the others, and says nothing of the inside', async () => {
  const engine = new FakeEngine(({ sampling }) =>
    sampling.choice === 1 ? [97, new Error('device 0x7f12 is gone')] : Array(20).fill(97),
  )
  const model = fakeModel()
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const prepared = await generation.prepareCompletion(['x'], params({ n: 3 }))
  const error = await (async () => {
    for await (const _ of generation.generate(prepared, new AbortController().signal));
  })().catch((thrown: unknown) => thrown)
  expect(error).toBeInstanceOf(ApiError)
  expect((error as ApiError).body().error).toEqual({
    message: 'The engine failed while it worked on this request.',
    type: 'server_error',
    param: null,
    code: 'engine_failure',
  })
  expect(engine.seen.map(({ state }) => state)).toEqual(['cancelled', 'failed', 'cancelled'])
})

test('a closing engine is told as shutting down', async () => {
  const engine = new FakeEngine(async function* () {
    yield 97
    await new Promise(() => {})
  })
  const model = fakeModel()
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const deltas = generation.generate(await generation.prepareCompletion(['x'], params()), new AbortController().signal)
  await deltas.next()
  const next = deltas.next()
  await engine.close()
  await expect(next).rejects.toMatchObject({ kind: 'server_shutting_down' })
})

test('how text is encoded: prompts as the tokenizer likes them, chats as the template says', async () => {
  const seen: SeenEncode[] = []
  const { generation } = setUp([EOS], fakeModel({ tokenizer: fakeTokenizer({}, seen) }))
  await generation.prepareCompletion(['a<|user|>'], params())
  await generation.prepareChat([{ role: 'user', content: 'b' }], params())
  expect(seen).toEqual([
    { text: 'a<|user|>', addSpecialTokens: true, allowSpecial: true, maxTokens: 257 },
    { text: '<|user|>b<|assistant|>', addSpecialTokens: false, allowSpecial: true, plain: [], maxTokens: 257 },
  ])
})

test('an empty prompt is BOS where the model has one, and an error where it has none', async () => {
  const withBos = setUp([EOS], fakeModel({ tokenizer: fakeTokenizer({ bosTokenId: EOS }) }))
  await withBos.run({}, [''])
  for await (const _ of withBos.generation.generate(
    await withBos.generation.prepareCompletion(undefined, params()),
    new AbortController().signal,
  ));
  expect(withBos.engine.seen.map(({ prompt }) => [...prompt])).toEqual([[EOS], [EOS]])
  await expect(withBos.run({}, [[]])).rejects.toThrow(/'prompt' is empty/)
  await expect(setUp([EOS]).run({}, [''])).rejects.toThrow(/'prompt' is empty/)
})

test('text that cannot fit is refused', async () => {
  const { generation } = setUp([EOS])
  const long = 'é'.repeat(13 * 256)
  await expect(generation.prepareCompletion([long], params())).rejects.toMatchObject({
    kind: 'context_length_exceeded',
    param: 'prompt',
  })
  await expect(generation.prepareChat([{ role: 'user', content: long }], params())).rejects.toMatchObject({
    kind: 'context_length_exceeded',
    param: 'messages',
  })
})

test('every completion is counted once, with how it ended', async () => {
  const { metrics, run, generation } = setUp([97, 97, EOS])
  await run({ n: 2 })
  await run({ max_tokens: 1 })
  for await (const _ of generation.generate(
    await generation.prepareCompletion(['x'], params()),
    new AbortController().signal,
  ))
    break
  await new Promise((resolve) => setImmediate(resolve))
  const { text } = await metrics.render(null)
  const ended = [...text.matchAll(/request_success_total\{.*finished_reason="(\w+)".*\} (\d+)/g)].map(
    ([, reason, count]) => [reason, count],
  )
  expect(ended).toEqual([
    ['stop', '2'],
    ['length', '1'],
    ['abort', '1'],
  ])
})

describe('the prompt', () => {
  const ids = bytesOf('😀b')
  const prompt: PromptLogprobs = {
    logprobs: Float32Array.of(-1, -2, -3, -4),
    ranks: Int32Array.of(1, 2, 3, 4),
    top_tokens: Int32Array.of(97, 98, 99, 100),
    top_logprobs: Float32Array.of(-0.5, -0.6, -0.7, -0.8),
  }

  test('is told with the first delta when it is echoed, and offsets go on behind it', async () => {
    const script = [{ ...logprob(word('Hello')), prompt }, logprob(word(' world')), logprob(EOS)]
    const { engine, run } = setUp(script)
    const deltas = await run({ echo: true, num_logprobs: 1 }, [ids])
    expect(engine.seen[0]?.sampling).toMatchObject({ num_logprobs: 1, num_prompt_logprobs: 1 })
    expect(deltas.map((delta) => delta.prompt?.text)).toEqual(['😀b', undefined, undefined])
    expect(deltas[0]?.prompt?.tokens.map(({ logprob }) => logprob)).toEqual([null, -1, -2, -3, -4])
    expect(deltas[0]?.prompt?.tokens.map(({ offset }) => offset)).toEqual([0, 0, 0, 0, 1])
    expect(deltas[0]?.prompt?.tokens.map(({ top }) => top?.[0]?.text ?? null)).toEqual([null, 'a', 'b', 'c', 'd'])
    expect(deltas.flatMap(({ tokens }) => tokens.map(({ offset }) => offset))).toEqual([2, 7, 13])
    expect(textOf(deltas)).toBe('Hello world')
  })

  test('is told in each of n choices, its text as it was sent', async () => {
    const deltas = await setUp([EOS]).run({ echo: true, n: 2 }, ['e\u0301'])
    expect(deltas.map((delta) => [delta.index, delta.prompt])).toEqual([
      [0, { text: 'e\u0301', tokens: [] }],
      [1, { text: 'e\u0301', tokens: [] }],
    ])
  })

  test('may be all: max_tokens 0 gives one delta without a token, and may fill the context', async () => {
    const { engine, run } = setUp([{ token: 0, prompt }])
    const deltas = await run({ max_tokens: 0, echo: true, num_logprobs: 1 }, [ids])
    expect(deltas).toMatchObject([{ text: '', tokens: [], token_ids: [], finish_reason: 'length', stop_reason: null }])
    expect(deltas[0]?.prompt?.tokens).toHaveLength(5)
    expect(engine.seen[0]).toMatchObject({ sampling: { max_tokens: 0 }, state: 'finished' })
    await run({ max_tokens: 0 }, ['x'.repeat(256)])
    await expect(run({ max_tokens: 0 }, [Array(257).fill(97)])).rejects.toMatchObject({
      kind: 'context_length_exceeded',
    })
    await expect(run({ max_tokens: 1 }, ['x'.repeat(256)])).rejects.toMatchObject({ kind: 'context_length_exceeded' })
  })

  test('has its own number of alternatives, with or without an echo', async () => {
    const { engine, run } = setUp([{ token: EOS, prompt }])
    const [first] = await run({ num_prompt_logprobs: 1 }, [ids])
    expect(first?.prompt?.tokens).toHaveLength(5)
    await run({ num_prompt_logprobs: 3, echo: true, num_logprobs: 1 }, [ids])
    await run({ echo: true }, [ids])
    await run({ num_logprobs: 2 }, [ids])
    expect(engine.seen.map(({ sampling }) => sampling.num_prompt_logprobs)).toEqual([1, 3, -1, -1])
  })
})

test('best_of asks for log-probabilities of all and gives out the best', async () => {
  const engine = new FakeEngine(({ sampling }) => [
    { token: 97 + (sampling.choice ?? 0), logprob: [-3, -1, -2][sampling.choice ?? 0] ?? 0 },
    { token: EOS, logprob: -1 },
  ])
  const model = fakeModel()
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const deltas: Delta[] = []
  const prepared = await generation.prepareCompletion(['x'], params({ n: 2, best_of: 3 }))
  for await (const delta of generation.generate(prepared, new AbortController().signal)) deltas.push(delta)
  expect(engine.seen.map(({ sampling }) => sampling.num_logprobs)).toEqual([0, 0, 0])
  expect([textOf(deltas, 0), textOf(deltas, 1)]).toEqual(['b', 'c'])
  expect(deltas.every(({ tokens }) => tokens.length === 0)).toBe(true)
})

test('a beam search gives out the n best beams as choices, with all that choices have', async () => {
  // Two tokens, of which "b" is the most probable and "a" the next; then the end.
  const engine = new FakeEngine(({ prompt }) => {
    const generated = prompt.length - 1
    const next = generated < 2 ? [98, 97, 99, 100] : [EOS, 97, 98, 99]
    const top = next.map((token, i) => ({ token, logprob: -0.5 * (i + 1) - (generated === 2 && i > 0 ? 9 : 0) }))
    return [{ token: next[0] as number, top }]
  })
  const model = fakeModel({ stopTokenIds: [EOS] })
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const asked = params({ n: 2, use_beam_search: true, num_logprobs: 1, max_tokens: 3, echo: true })
  const deltas: Delta[] = []
  const prepared = await generation.prepareCompletion(['x'], asked)
  for await (const delta of generation.generate(prepared, new AbortController().signal)) deltas.push(delta)
  expect(textOf(deltas, 0)).toBe('bb')
  expect(['ba', 'ab']).toContain(textOf(deltas, 1))
  expect(deltas.map(({ index, finish_reason }) => [index, finish_reason])).toEqual([
    ...[
      [0, null],
      [0, null],
      [0, 'stop'],
    ],
    ...[
      [1, null],
      [1, null],
      [1, 'stop'],
    ],
  ])
  expect(deltas[0]?.prompt?.text).toBe('x')
  expect(deltas.slice(0, 3).flatMap(({ tokens }) => tokens.map(({ text, logprob }) => [text, logprob]))).toEqual([
    ['b', -0.5],
    ['b', -0.5],
    ['<|endoftext|>', -0.5],
  ])
})

test('what does not go together with a beam search is refused by name', async () => {
  const { run } = setUp([EOS])
  const cases: [Partial<GenerationParams>, string][] = [
    [{ stop: ['x'] }, 'stop'],
    [{ repetition_penalty: 1.1 }, 'repetition_penalty'],
    [{ logit_bias: new Map([[1, 1]]) }, 'logit_bias'],
    [{ min_tokens: 2 }, 'min_tokens'],
    [{ n: 11 }, 'n'],
    [{ best_of: 11 }, 'best_of'],
  ]
  for (const [more, param] of cases) {
    await expect(run({ use_beam_search: true, ...more })).rejects.toMatchObject({ kind: 'invalid_value', param })
  }
})

test('embeddings, likelihoods and next tokens are measured for all prompts at once', async () => {
  const engine = new FakeEngine(({ prompt, sampling }) => [
    {
      token: 0,
      pooled: Float32Array.of(prompt.length),
      top: Array.from(sampling.logprob_token_ids ?? [], (token) => ({ token, logprob: -token })),
      prompt: {
        logprobs: Float32Array.of(-prompt.length),
        ranks: Int32Array.of(1),
        top_tokens: new Int32Array(),
        top_logprobs: new Float32Array(),
      },
    },
  ])
  const model = fakeModel()
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const prompts = [Int32Array.of(1), Int32Array.of(1, 2)]
  const { signal } = new AbortController()
  expect(await generation.embed(prompts, 'mean', {}, signal)).toEqual([Float32Array.of(1), Float32Array.of(2)])
  expect((await scorePrompts(engine, prompts, {}, signal)).map(({ logprobs }) => [...logprobs])).toEqual([[-1], [-2]])
  expect(await nextLogprobs(engine, prompts, [5, 3], {}, signal)).toEqual([
    Float32Array.of(-5, -3),
    Float32Array.of(-5, -3),
  ])
  expect(engine.seen.map(({ sampling }) => sampling.max_tokens)).toEqual([0, 0, 0, 0, 1, 1])
  engine.refusal = 'no'
  await expect(generation.embed(prompts, 'last', {}, signal)).rejects.toMatchObject({ kind: 'request_refused' })
})

test('an embedding that nobody waits for any more ends in the engine', async () => {
  const engine = new FakeEngine(async function* () {
    await new Promise(() => {})
    yield 0
  })
  const model = fakeModel()
  const generation = new Generation(model, engine, new Encoder(model.tokenizer, null), new Metrics('fake'))
  const controller = new AbortController()
  const result = generation.embed([Int32Array.of(1), Int32Array.of(2)], 'mean', {}, controller.signal)
  await engine.until(({ seen }) => seen.length === 2)
  controller.abort()
  await expect(result).rejects.toMatchObject({ name: 'AbortError' })
  expect(engine.seen.map(({ state }) => state)).toEqual(['cancelled', 'cancelled'])
})
