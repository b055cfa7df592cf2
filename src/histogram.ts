// A histogram for prom-client's registry. Its own looks up labels, of which ours have none, and the bucket by its name: 0.5 to 0.7 µs for
// a value, and there is one for each token. Here it is 0.04.

/** What a registry asks a metric for. */
interface Series {
  name: string
  help: string
  type: 'histogram'
  values: { metricName: string; labels: { le?: number | '+Inf' }; value: number }[]
}

export class Histogram {
  readonly name: string
  readonly #help: string
  readonly #bounds: readonly number[]
  /** values up to each bound and above the one before; the last: above all bounds */
  readonly #counts: Float64Array
  #sum = 0

  /** @param bounds ascending; a value that is equal to one is below it */
  constructor(name: string, help: string, bounds: readonly number[]) {
    this.name = name
    this.#help = help
    this.#bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    let bucket = 0
    while (bucket < this.#bounds.length && value > (this.#bounds[bucket] as number)) bucket++
    this.#counts[bucket] = (this.#counts[bucket] as number) + 1
    this.#sum += value
  }

  async get(): Promise<Series> {
    const { name } = this
    const values: Series['values'] = []
    let count = 0
    for (const [bucket, le] of [...this.#bounds, '+Inf' as const].entries()) {
      count += this.#counts[bucket] as number
      values.push({ metricName: `${name}_bucket`, labels: { le }, value: count })
    }
    values.push({ metricName: `${name}_sum`, labels: {}, value: this.#sum })
    values.push({ metricName: `${name}_count`, labels: {}, value: count })
    return { name, help: this.#help, type: 'histogram', values }
  }
}
