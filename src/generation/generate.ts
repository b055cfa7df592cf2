// render → encode → submit → decode → deltas: the only token loop in TypeScript. Text comes in, text goes out; no HTTP.

import { setMaxListeners } from 'node:events'
import type { SamplingParams } from '../engine/contract.js'
import { type Engine, EngineFailure, EngineRefusal, type TokenEvent } from '../engine/engine.js'
import { ApiError } from '../errors.js'
import type { FinishedReason, Metrics } from '../metrics.js'
import type { Model } from '../models/model.js'
import { Detokenizer } from './detokenizer.js'
import type { Encoder } from './encoder.js'
import { ShownTokens, showEvent } from './logprobs.js'
import { merge } from './merge.js'
import { Prompts } from './prompts.js'
import type { Delta, GenerationParams, PreparedRequest, Prompt } from './request.js'
import { StopMatcher } from './stops.js'
import type { ChatMessage, RenderOptions } from './template.js'

export class Generation {
  readonly #model: Model
  readonly #engine: Engine
  readonly #metrics: Metrics
  readonly #stopTokenIds: Int32Array
  /** text → token ids and back */
  readonly prompts: Prompts

  constructor(model: Model, engine: Engine, encoder: Encoder, metrics: Metrics) {
    this.#model = model
    this.#engine = engine
    this.#metrics = metrics
    this.#stopTokenIds = Int32Array.from(model.stopTokenIds)
    this.prompts = new Prompts(model, encoder, engine.info.max_model_len)
  }

  /** The longest request in tokens, prompt and completion together. */
  get maxModelLen(): number {
    return this.#engine.info.max_model_len
  }

  /**
   * Encodes the prompts of a completions request.
   * @param prompts none: one completion of nothing but BOS
   * @throws ApiError when a prompt is empty, too long or no prompt of this model
   */
  async prepareCompletion(prompts: readonly Prompt[] | undefined, params: GenerationParams): Promise<PreparedRequest> {
    const arrived = performance.now()
    const { truncate_prompt_tokens, add_special_tokens } = params
    const encoded: Int32Array[] = []
    for (const prompt of prompts ?? ['']) {
      encoded.push(
        typeof prompt === 'string'
          ? await this.prompts.text(prompt, add_special_tokens ?? true, truncate_prompt_tokens !== undefined)
          : this.prompts.ids(prompt),
      )
    }
    return this.#prepare(encoded, params, 16, 'prompt', arrived)
  }

  /**
   * Renders and encodes a chat.
   * @throws ApiError when the model has no chat template, the template refuses the messages, or they are too long
   */
  async prepareChat(
    messages: readonly ChatMessage[],
    params: GenerationParams,
    options: RenderOptions = {},
  ): Promise<PreparedRequest> {
    const arrived = performance.now()
    const { truncate_prompt_tokens, add_special_tokens } = params
    // The template holds BOS and its like already; but the end of an encoder's input no template writes.
    const tokens = await this.prompts.chat(
      messages,
      options,
      add_special_tokens ?? this.#model.spec.num_encoder_layers > 0,
      truncate_prompt_tokens !== undefined,
    )
    return this.#prepare([tokens], params, null, 'messages', arrived)
  }

  /**
   * Runs a prepared request. Aborting the signal ends it without a word; leaving the loop early ends it too.
   * @throws ApiError when the engine refuses or fails
   */
  async *generate(request: PreparedRequest, signal: AbortSignal): AsyncGenerator<Delta> {
    const { params } = request
    const controller = new AbortController()
    setMaxListeners(0, controller.signal) // each choice listens to it; more than ten are no leak
    const abort = () => controller.abort()
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
    // 53 bits: the largest integer that JavaScript and the engine write in the same way.
    const seed = params.seed ?? Math.floor(Math.random() * 2 ** 53)
    const choices: AsyncGenerator<Delta>[] = []
    try {
      request.prompts.forEach((prompt, promptIndex) => {
        for (let i = 0; i < params.n; i++) {
          const sampling = this.#sampling(request, request.max_tokens[promptIndex] ?? 1, seed, i)
          const events = this.#engine.submit({ prompt, sampling }, controller.signal)
          choices.push(this.#choice(events, promptIndex * params.n + i, request, prompt, controller.signal))
        }
      })
      yield* merge(choices)
    } catch (error) {
      throw engineError(error)
    } finally {
      signal.removeEventListener('abort', abort)
      abort()
      // Each choice notes its end; one that waits for the engine does so when the abort has reached it.
      for (const choice of choices) choice.return(undefined).catch(() => {})
    }
  }

  /** The loop over one choice's tokens. */
  async *#choice(
    events: AsyncIterable<TokenEvent>,
    index: number,
    request: PreparedRequest,
    prompt: Int32Array,
    signal: AbortSignal,
  ): AsyncGenerator<Delta> {
    const { tokenizer } = this.#model
    const { params, arrived } = request
    const detokenizer = new Detokenizer(tokenizer, prompt)
    const { include_stop_str_in_output = false, skip_special_tokens = true } = params
    const stops = new StopMatcher(params.stop, include_stop_str_in_output)
    const shown = new ShownTokens()
    let decoded = 0 // UTF-16 units of text made so far, given out or not
    let codePoints = 0 // the same in code points
    let given = 0 // UTF-16 units given out
    let numTokens = 0
    let previous = arrived
    let reason: FinishedReason = 'abort'
    try {
      for await (const event of events) {
        if (event.finish === 'cancelled') break
        if (event.finish === 'error') throw new EngineFailure('the engine ended the request with an error')
        const now = performance.now()
        if (numTokens === 0) this.#metrics.firstToken((now - arrived) / 1000)
        else this.#metrics.nextToken((now - previous) / 1000)
        previous = now
        numTokens++
        const last = event.finish !== 'none'
        if (params.num_logprobs !== undefined) shown.add(decoded, showEvent(tokenizer, event, codePoints))
        // The token that ended a completion says "end"; its text is none of the answer's.
        const silent =
          (event.finish === 'stop' && !include_stop_str_in_output) ||
          (skip_special_tokens && tokenizer.isSpecial(event.token))
        let piece = silent ? '' : detokenizer.push(event.token)
        if (last) piece += detokenizer.end()
        decoded += piece.length
        codePoints += countCodePoints(piece)
        // Before min_tokens no stop string counts.
        const early = numTokens < (params.min_tokens ?? 0)
        const { text, stopped } = early ? { text: piece, stopped: null } : stops.push(piece)
        given += text.length
        const token_ids = [event.token]
        if (stopped !== null) {
          reason = 'stop'
          yield { index, text, tokens: shown.take(given), token_ids, finish_reason: 'stop', stop_reason: stopped }
          return // leaving the loop cancels the request in the engine
        }
        if (last) {
          reason = event.finish === 'stop' ? 'stop' : 'length'
          const tokens = shown.take(Number.POSITIVE_INFINITY)
          const own = reason === 'stop' && params.stop_token_ids?.includes(event.token)
          const stop_reason = own ? event.token : null
          yield { index, text: text + stops.end(), tokens, token_ids, finish_reason: reason, stop_reason }
          return
        }
        yield { index, text, tokens: shown.take(given), token_ids, finish_reason: null, stop_reason: null }
      }
      // Nobody but this request's signal and the end of the engine cancels a request.
      if (!signal.aborted) throw new ApiError('server_shutting_down', 'The server is shutting down.')
    } catch (error) {
      reason = 'error'
      throw error
    } finally {
      this.#metrics.finished(reason, (performance.now() - arrived) / 1000, prompt.length, numTokens)
    }
  }

  #sampling(
    { params, bad_word_ids }: PreparedRequest,
    max_tokens: number,
    seed: number,
    choice: number,
  ): Partial<SamplingParams> & { max_tokens: number } {
    const defaults = this.#model.generationDefaults
    return {
      max_tokens,
      temperature: params.temperature ?? defaults.temperature ?? 1,
      top_p: params.top_p ?? defaults.top_p ?? 1,
      top_k: Math.max(0, params.top_k ?? defaults.top_k ?? 0),
      min_p: params.min_p ?? defaults.min_p ?? 0,
      presence_penalty: params.presence_penalty ?? 0,
      frequency_penalty: params.frequency_penalty ?? 0,
      repetition_penalty: params.repetition_penalty ?? 1,
      min_tokens: params.min_tokens ?? 0,
      seed,
      choice,
      num_logprobs: params.num_logprobs ?? -1,
      ignore_eos: params.ignore_eos ?? false,
      eos_token_ids: this.#stopTokenIds,
      ...sequences(bad_word_ids),
      stop_token_ids: Int32Array.from(params.stop_token_ids ?? []),
      allowed_token_ids: Int32Array.from(params.allowed_token_ids ?? []),
      logprob_token_ids: Int32Array.from(params.logprob_token_ids ?? []),
      bias_ids: Int32Array.from(params.logit_bias?.keys() ?? []),
      bias_values: Float32Array.from(params.logit_bias?.values() ?? []),
    }
  }

  /** The tokens of a word, and where they differ also of the word behind a space, as vLLM's bad_words has them. */
  #badWordIds(word: string): number[][] {
    const encode = (text: string) => this.#model.tokenizer.encode(text, { addSpecialTokens: false })
    const alone = encode(word.trimStart())
    const behindSpace = encode(` ${word.trimStart()}`)
    const differs = behindSpace[0] !== alone[0] && behindSpace.length === alone.length
    return (differs ? [alone, behindSpace] : [alone]).filter((ids) => ids.length > 0)
  }

  /** @param defaultTokens completion tokens if the request does not say; null: the rest of the context */
  #prepare(
    encoded: Int32Array[],
    params: GenerationParams,
    defaultTokens: number | null,
    param: 'prompt' | 'messages',
    arrived: number,
  ): PreparedRequest {
    const limit = this.maxModelLen
    const { num_sampled_ids } = this.#model.spec
    for (const [param, ids] of [
      ['logit_bias', params.logit_bias?.keys()],
      ['stop_token_ids', params.stop_token_ids],
      ['allowed_token_ids', params.allowed_token_ids],
      ['logprob_token_ids', params.logprob_token_ids],
    ] as const) {
      const wrongId = [...(ids ?? [])].find((id) => id >= num_sampled_ids)
      if (wrongId === undefined) continue
      throw new ApiError(
        'invalid_value',
        `'${param}' names the token id ${wrongId}; this model's ids end at ${num_sampled_ids - 1}.`,
        param,
      )
    }
    const bad_word_ids = (params.bad_words ?? []).flatMap((word) => this.#badWordIds(word))
    const prompts = encoded.map((prompt) => truncated(prompt, params, limit))
    const max_tokens = prompts.map((prompt) => {
      const room = limit - prompt.length
      if (room < 1) {
        throw new ApiError(
          'context_length_exceeded',
          `This model's maximum context length is ${limit} tokens. Your ${param} has ${prompt.length} tokens, which leaves no room for a completion. Please shorten it.`,
          param,
        )
      }
      if (params.max_tokens === undefined) return Math.min(defaultTokens ?? room, room)
      if (params.max_tokens > room && params.clamp_max_tokens) return room
      if (params.max_tokens > room) {
        throw new ApiError(
          'context_length_exceeded',
          `This model's maximum context length is ${limit} tokens. You asked for ${prompt.length + params.max_tokens} tokens: ${prompt.length} in the ${param} and ${params.max_tokens} in the completion (${params.max_tokens_param}). Please ask for less.`,
          param,
        )
      }
      return params.max_tokens
    })
    const num_prompt_tokens = prompts.reduce((sum, prompt) => sum + prompt.length, 0)
    return { prompts, num_prompt_tokens, params, max_tokens, bad_word_ids, arrived }
  }
}

/** Token sequences as they cross to the engine. */
function sequences(bad_word_ids: readonly number[][]): Pick<SamplingParams, 'bad_word_ids' | 'bad_word_sizes'> {
  return {
    bad_word_ids: Int32Array.from(bad_word_ids.flat()),
    bad_word_sizes: Int32Array.from(bad_word_ids, (ids) => ids.length),
  }
}

/** The end of a prompt, as long as truncate_prompt_tokens allows. */
function truncated(
  prompt: Int32Array,
  { truncate_prompt_tokens, max_tokens }: GenerationParams,
  limit: number,
): Int32Array {
  if (truncate_prompt_tokens === undefined) return prompt
  const kept = truncate_prompt_tokens === -1 ? Math.max(1, limit - (max_tokens ?? 1)) : truncate_prompt_tokens
  return prompt.length > kept ? prompt.subarray(prompt.length - kept) : prompt
}

/** What a client is told about an engine's error. */
function engineError(error: unknown): unknown {
  if (error instanceof EngineRefusal)
    return new ApiError('request_refused', `The engine refused this request: ${error.message}`)
  if (error instanceof EngineFailure) {
    return new ApiError('engine_failure', 'The engine failed while it worked on this request.', null, error)
  }
  return error
}

function countCodePoints(text: string): number {
  let count = text.length
  for (let i = 0; i < text.length; i++) {
    // The second half of a surrogate pair is no code point of its own.
    if ((text.charCodeAt(i) & 0xfc00) === 0xdc00) count--
  }
  return count
}
