// Rate limits: the requests that may begin and the tokens that may be used in a minute, by all who have the server's key together.

import { ApiError } from '../errors.js'
import type { PreparedRequest } from '../generation/request.js'
import type { Call } from './call.js'
import type { RequestRecord } from './context.js'

const minuteMs = 60_000

type Name = 'requests' | 'tokens'

/** How a limit stood when a request was admitted or refused; as OpenAI's `rate_limits.updated` says it. */
export interface RateLimit {
  name: Name
  /** in a minute */
  limit: number
  remaining: number
  /** seconds until all of it is there again */
  reset_seconds: number
}

/** Fills at an even pace, `limit` in a minute, up to `limit`. */
class Bucket {
  readonly limit: number
  #level: number
  #filled: number

  constructor(limit: number, now: number) {
    this.limit = limit
    this.#level = limit
    this.#filled = now
  }

  /** What is there now; less than 0 where more was used than was reserved. */
  level(now: number): number {
    this.#level = Math.min(this.limit, this.#level + ((now - this.#filled) * this.limit) / minuteMs)
    this.#filled = now
    return this.#level
  }

  /** @param amount negative: gives back */
  take(amount: number): void {
    this.#level -= amount
  }

  /** Whole milliseconds until `amount` is there, but for what rounding has lost. */
  wait(amount: number, now: number): number {
    return Math.max(0, Math.ceil(((amount - this.level(now)) * minuteMs) / this.limit - 1e-6))
  }
}

export class RateLimits {
  readonly #buckets: readonly [Name, Bucket][]
  readonly #now: () => number

  /** @param limits in a minute; null: no limit @param now milliseconds that only grow */
  constructor(limits: Readonly<Record<Name, number | null>>, now: () => number = () => performance.now()) {
    this.#now = now
    this.#buckets = (['requests', 'tokens'] as const).flatMap((name): [Name, Bucket][] => {
      const limit = limits[name]
      return limit === null ? [] : [[name, new Bucket(limit, now())]]
    })
  }

  /**
   * Takes a request and the tokens that it may use at most, or nothing of either. Of a request for more tokens than the limit only as
   * many are taken as that: it waits until all are there, and its use beyond them keeps others waiting.
   * @throws ApiError when too little is there
   */
  admit(record: RequestRecord, tokens: number): void {
    const now = this.#now()
    const wanted = this.#buckets.map(([name, bucket]) => ({
      ...{ name, bucket },
      amount: name === 'requests' ? 1 : Math.min(tokens, bucket.limit),
    }))
    const short = wanted.find(({ bucket, amount }) => bucket.wait(amount, now) > 0)
    if (!short) {
      for (const { name, bucket, amount } of wanted) {
        bucket.take(amount)
        if (name === 'tokens') record.reserved_tokens = amount
      }
    }
    record.rate_limits = this.#buckets.map(([name, bucket]) => ({
      ...{ name, limit: bucket.limit, remaining: Math.max(0, Math.floor(bucket.level(now))) },
      reset_seconds: bucket.wait(bucket.limit, now) / 1000,
    }))
    if (!short) return
    const { name, bucket, amount } = short
    const seconds = bucket.wait(amount, now) / 1000
    const used = Math.ceil(bucket.limit - bucket.level(now))
    throw new ApiError(
      `rate_limit_${name}`,
      `Rate limit reached for ${name} per minute: limit ${bucket.limit}, used ${used}, requested ${amount}. Please try again in ${duration(seconds)}.`,
      null,
      undefined,
      seconds,
    )
  }

  /** A request has ended: what it reserved and did not use is there again. @param status 429 or 5xx: it was refused and used nothing */
  settle(record: RequestRecord, status: number): void {
    const { reserved_tokens, prompt_tokens = 0, completion_tokens = 0 } = record
    if (reserved_tokens === undefined) return
    delete record.reserved_tokens
    const used = status === 429 || status >= 500 ? 0 : prompt_tokens + completion_tokens
    for (const [name, bucket] of this.#buckets) if (name === 'tokens') bucket.take(used - reserved_tokens)
  }
}

/**
 * Lets a request begin whose prompts are known, if the limits allow it.
 * @param tokens that it may use at most
 * @throws ApiError
 */
export function admit({ state, record, unlimited }: Call, tokens: number): void {
  if (!unlimited) state.rateLimits?.admit(record, tokens)
}

/** Tokens that a request may use at most, all of its choices together. */
export function mostTokens({ prompts, params, max_tokens }: PreparedRequest): number {
  const { n, best_of = n } = params
  return prompts.reduce((sum, { length }, i) => sum + length + best_of * (max_tokens[i] ?? 0), 0)
}

/** Go's notation, as in OpenAI's headers: 17ms, 8.64s, 6m0s, 1h0m0s. */
export function duration(seconds: number): string {
  const ms = Math.round(seconds * 1000)
  if (ms < 1000) return ms === 0 ? '0s' : `${ms}ms`
  const minutes = Math.floor(ms / minuteMs)
  const rest = `${(ms % minuteMs) / 1000}s`
  if (minutes === 0) return rest
  return minutes < 60 ? `${minutes}m${rest}` : `${Math.floor(minutes / 60)}h${minutes % 60}m${rest}`
}
