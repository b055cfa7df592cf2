// How fast something goes on in its middle, where neither its beginning nor its end counts.
import { performance } from 'node:perf_hooks'

export class Pace {
  #total = 0
  /** [milliseconds, all that came until then] */
  #samples = [[performance.now(), 0]]

  /** @param amount what comes now, such as bytes */
  add(amount) {
    this.#total += amount
    const now = performance.now()
    if (now - this.#samples.at(-1)[0] >= 5) this.#samples.push([now, this.#total])
  }

  /** Of `units`, so many a second, from the first fifth to the last tenth, when all that came was worth so many; NaN for what came at once. */
  rate(units) {
    const [start, before] = this.#samples.find(([, amount]) => amount >= 0.2 * this.#total) ?? this.#samples.at(-1)
    const [end, after] = this.#samples.find(([, amount]) => amount >= 0.9 * this.#total) ?? this.#samples.at(-1)
    return (units * (after - before)) / this.#total / ((end - start) / 1000)
  }
}
