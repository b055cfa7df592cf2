// render → encode → submit → decode → deltas. Text comes in, text goes out; no HTTP. The token loop is in choice.ts.

import type { Engine, TokenEvent } from '../engine/engine.js'
import { onAbort } from '../engine/on_abort.js'
import { ApiError } from '../errors.js'
import type { Metrics } from '../metrics.js'
import type { Model } from '../models/model.js'
import { beamOptions, searchBeams } from './beams.js'
import { selectBest } from './best_of.js'
import { choiceDeltas } from './choice.js'
import { ChoiceTimes } from './choice_times.js'
import type { Encoder } from './encoder.js'
import { engineError } from './engine_error.js'
import { checkLength, encodeInputs, type InputOptions } from './inputs.js'
import { scoreWithLastToken } from './last_token.js'
import { embed, nextLogprobs, scorePrompts } from './measure.js'
import { merge } from './merge.js'
import { prepare } from './prepare.js'
import { Prompts } from './prompts.js'
import {
  answerIds,
  likelihood,
  type Pair,
  type RelevanceOptions,
  type RelevancePrompt,
  relevancePrompts,
  yesAgainstNo,
} from './relevance.js'
import type { Delta, EncodedPrompt, GenerationParams, PreparedRequest, Prompt } from './request.js'
import { queueing } from './sampling.js'
import { type ChatMessage, chatFieldNames, type RenderOptions } from './template.js'

/** What a request of any number of prompts and choices holds of tokens whose text nobody has fetched yet. */
const maxUnreadBytes = 32 * 1024

/** Why a request's choices are to end. Shared, for a reason of its own would hold a trace of the stack that nobody reads. */
const ended = new Error('the request has ended')

export class Generation {
  readonly #model: Model
  readonly #engine: Engine
  readonly #metrics: Metrics
  /** text → token ids and back */
  readonly prompts: Prompts

  /**
   * @param renderThread compiled render_thread.js, or null to render every chat in this thread
   * @param trustsTemplates requests may bring a chat template of their own
   */
  constructor(
    model: Model,
    engine: Engine,
    encoder: Encoder,
    metrics: Metrics,
    renderThread: URL | null = null,
    trustsTemplates = false,
  ) {
    this.#model = model
    this.#engine = engine
    this.#metrics = metrics
    this.prompts = new Prompts(model, encoder, engine.info.max_model_len, renderThread, trustsTemplates)
  }

  /** The longest request in tokens, prompt and completion together. */
  get maxModelLen(): number {
    return this.#engine.info.max_model_len
  }

  /**
   * Encodes the prompts of a completions request.
   * @param prompts none: one completion of nothing but BOS
   * @param signal aborted when nobody waits for it any more
   * @throws ApiError when a prompt is empty, too long or no prompt of this model
   */
  async prepareCompletion(
    prompts: readonly Prompt[] | undefined,
    params: GenerationParams,
    signal?: AbortSignal,
  ): Promise<PreparedRequest> {
    const arrived = performance.now()
    const { truncate_prompt_tokens, add_special_tokens } = params
    const encoded: EncodedPrompt[] = []
    for (const prompt of prompts ?? ['']) {
      if (typeof prompt === 'string') {
        const truncate = truncate_prompt_tokens !== undefined
        const ids = await this.prompts.text(prompt, add_special_tokens ?? true, truncate, signal)
        encoded.push({ ids, text: prompt })
      } else {
        encoded.push({ ids: this.prompts.ids(prompt), text: null })
      }
    }
    const badWords = await this.prompts.badWords(params.bad_words ?? [], signal)
    return prepare(this.#model, this.maxModelLen, encoded, badWords, params, 16, 'prompt', arrived)
  }

  /**
   * Renders and encodes a chat.
   * @param signal aborted when nobody waits for it any more
   * @throws ApiError when the model has no chat template, the template refuses the messages, or they are too long
   */
  async prepareChat(
    messages: readonly ChatMessage[],
    params: GenerationParams,
    options: RenderOptions = {},
    signal?: AbortSignal,
  ): Promise<PreparedRequest> {
    const arrived = performance.now()
    const { truncate_prompt_tokens, add_special_tokens } = params
    // The template holds BOS and its like already; but the end of an encoder's input no template writes.
    const ids = await this.prompts.chat(
      messages,
      options,
      add_special_tokens ?? this.#model.spec.num_encoder_layers > 0,
      truncate_prompt_tokens !== undefined,
      signal,
    )
    const defaultTokens = this.#model.generationDefaults.max_tokens ?? null
    const badWords = await this.prompts.badWords(params.bad_words ?? [], signal)
    return prepare(
      this.#model,
      this.maxModelLen,
      [{ ids, text: null }],
      badWords,
      params,
      defaultTokens,
      (options.names ?? chatFieldNames).messages,
      arrived,
    )
  }

  /**
   * Runs a prepared request: it is queued at the latest when its first delta is asked for. Aborting the signal ends it without a word;
   * leaving the loop early ends it too.
   * @throws ApiError when there is no place for it, and while iterating when the engine refuses or fails
   */
  generate(request: PreparedRequest, signal: AbortSignal): AsyncGenerator<Delta> {
    checkQueue(this.#engine)
    const { n, best_of = n, use_beam_search = false } = request.params
    if (use_beam_search || best_of > 1 || request.prompts.length > 1) return this.#several(request, signal)
    return this.#one(request, signal)
  }

  /** A single choice is its own stream: to hand each delta on once more would cost as much as making its text. */
  #one(request: PreparedRequest, signal: AbortSignal): AsyncGenerator<Delta> {
    try {
      const [choice] = this.#samples(request, 1, signal)
      return choice as AsyncGenerator<Delta>
    } catch (error) {
      throw engineError(error)
    }
  }

  /** All choices, each as far as it has come. One that fails is the end of all. */
  async *#several(request: PreparedRequest, signal: AbortSignal): AsyncGenerator<Delta> {
    const { n, best_of = n, use_beam_search = false } = request.params
    const controller = new AbortController()
    const abort = () => controller.abort(ended)
    if (signal.aborted) abort()
    const stopListening = onAbort(signal, abort)
    let choices: AsyncGenerator<Delta>[] = []
    try {
      choices = use_beam_search
        ? request.prompts.map((_, i) => this.#beams(request, i, controller.signal))
        : this.#samples(request, best_of, controller.signal)
      if (best_of > n && !use_beam_search) yield* selectBest(merge(choices), best_of, n)
      else yield* merge(choices)
    } catch (error) {
      throw engineError(error)
    } finally {
      stopListening()
      abort()
      // Each choice notes its end; one that waits for the engine does so when the abort has reached it.
      for (const choice of choices) choice.return(undefined).catch(() => {})
    }
  }

  /** `count` choices of each prompt, queued in the engine. */
  #samples(request: PreparedRequest, count: number, signal: AbortSignal): AsyncGenerator<Delta>[] {
    // 53 bits: the largest integer that JavaScript and the engine write in the same way.
    const seed = request.params.seed ?? Math.floor(Math.random() * 2 ** 53)
    return request.prompts.flatMap((_, promptIndex) => {
      const engineRequest = this.#engineRequest(request, promptIndex, seed)
      const isTooLong = engineRequest.prompt.length > this.maxModelLen // by the one token that scoring allows
      const choices = isTooLong
        ? Array.from({ length: count }, () => scoreWithLastToken(this.#engine, engineRequest, signal))
        : this.#engine.submitChoices(engineRequest, count, signal)
      return choices.map((events, i) => this.#choice(request, promptIndex, promptIndex * count + i, events, signal))
    })
  }

  /** The n best beams of a prompt, one after the other. */
  async *#beams(request: PreparedRequest, promptIndex: number, signal: AbortSignal): AsyncGenerator<Delta> {
    const engineRequest = this.#engineRequest(request, promptIndex, 0)
    const options = beamOptions(request.params, engineRequest.sampling.max_tokens, this.#model.stopTokenIds)
    const found = await searchBeams(this.#engine, engineRequest, options, this.#model.spec.num_sampled_ids, signal)
    for (const [i, events] of found.slice(0, request.params.n).entries()) {
      yield* this.#choice(request, promptIndex, promptIndex * request.params.n + i, events, signal)
    }
  }

  #engineRequest({ prompts, max_tokens, sampling }: PreparedRequest, promptIndex: number, seed: number) {
    return {
      prompt: prompts[promptIndex] ?? new Int32Array(),
      sampling: { ...sampling, max_tokens: max_tokens[promptIndex] ?? 1, seed },
      max_unread_bytes: maxUnreadBytes / prompts.length,
    }
  }

  #choice(
    { params, prompts, texts, arrived }: PreparedRequest,
    promptIndex: number,
    index: number,
    events: AsyncIterable<TokenEvent> | Iterable<TokenEvent>,
    signal: AbortSignal,
  ): AsyncGenerator<Delta> {
    const prompt = { ids: prompts[promptIndex] ?? new Int32Array(), text: texts[promptIndex] ?? null }
    const times = new ChoiceTimes(this.#metrics, arrived)
    const encoded = this.#model.spec.num_encoder_layers > 0
    return choiceDeltas(events, { index, prompt, encoded, params, times }, this.#model.tokenizer, signal)
  }

  /** Numbers in a hidden state. */
  get hiddenSize(): number {
    return this.#model.spec.hidden_size
  }

  /** Token ids of texts that are only read. @throws ApiError when one is empty, too long or not this model's */
  encodeInputs(inputs: readonly Prompt[], options: InputOptions, signal: AbortSignal): Promise<Int32Array[]> {
    this.#refuseForEncoder()
    return encodeInputs(this.prompts, this.maxModelLen, inputs, options, signal)
  }

  /** Hidden states of prompts, [hidden_size] each. @throws ApiError; what the signal was aborted with */
  embed(
    prompts: readonly Int32Array[],
    pooling: 'mean' | 'last',
    turn: Pick<GenerationParams, 'priority' | 'cache_salt'>,
    signal: AbortSignal,
  ): Promise<Float32Array[]> {
    return told(this.#engine, () => embed(this.#engine, prompts, pooling, queueing(turn), signal))
  }

  /** What the model reads to measure how well documents suit queries. @throws ApiError */
  async prepareRelevance(
    pairs: readonly Pair[],
    options: RelevanceOptions,
    signal: AbortSignal,
  ): Promise<RelevancePrompt[]> {
    this.#refuseForEncoder()
    const prompts = await relevancePrompts(this.prompts, pairs, options, signal)
    for (const { ids } of prompts) checkLength(ids, this.maxModelLen, 'documents')
    return prompts
  }

  /** How well each pair's document suits its query, from 0 to 1. @throws ApiError; what the signal was aborted with */
  async relevance(
    prompts: readonly RelevancePrompt[],
    options: RelevanceOptions & Pick<GenerationParams, 'priority' | 'cache_salt'>,
    signal: AbortSignal,
  ): Promise<number[]> {
    const ids = prompts.map((prompt) => prompt.ids)
    if (options.method === 'likelihood') {
      const all = await told(this.#engine, () => scorePrompts(this.#engine, ids, queueing(options), signal))
      return all.map(({ logprobs }, i) => likelihood(logprobs, prompts[i]?.numQueryTokens ?? 0))
    }
    const answers = await answerIds(this.prompts, options, signal)
    const all = await told(this.#engine, () => nextLogprobs(this.#engine, ids, answers, queueing(options), signal))
    return all.map(yesAgainstNo)
  }

  /** What an encoder has read has neither hidden states behind the final norm nor log-probabilities. */
  #refuseForEncoder(): void {
    if (this.#model.spec.num_encoder_layers === 0) return
    const message = 'An encoder-decoder model has no embeddings and scores no texts yet.'
    throw new ApiError('unsupported_value', message, 'model')
  }
}

/**
 * A request finds a place in the queue with all that it brings, however many prompts and choices, or with nothing of it.
 * @throws ApiError when the queue is full
 */
function checkQueue(engine: Engine): void {
  const { num_queue_places, num_requests_waiting } = engine.stats()
  if (num_queue_places > 0) return
  throw new ApiError(
    'queue_full',
    `The server is busy: its queue is full (${num_requests_waiting} completions wait). Please try again later.`,
  )
}

/** What `measure` gives, with errors as a client is told. */
async function told<T>(engine: Engine, measure: () => Promise<T>): Promise<T> {
  try {
    checkQueue(engine)
    return await measure()
  } catch (error) {
    throw engineError(error)
  }
}
