// When one choice's tokens came, as the metrics count it.

import type { FinishedReason, Metrics } from '../metrics.js'

export class ChoiceTimes {
  readonly #metrics: Metrics
  readonly #arrived: number
  #lastToken = 0
  #numTokens = 0

  /** @param arrived performance.now() of the request's arrival */
  constructor(metrics: Metrics, arrived: number) {
    this.#metrics = metrics
    this.#arrived = arrived
  }

  token(): void {
    const now = performance.now()
    if (this.#numTokens++ === 0) this.#metrics.firstToken((now - this.#arrived) / 1000)
    else this.#metrics.nextToken((now - this.#lastToken) / 1000)
    this.#lastToken = now
  }

  finished(reason: FinishedReason, promptTokens: number): void {
    this.#metrics.finished(reason, (performance.now() - this.#arrived) / 1000, promptTokens, this.#numTokens)
  }
}
