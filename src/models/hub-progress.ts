// How far a download is, for people: one living line in a terminal, a line now and then elsewhere.

/** Where the lines go. */
export interface ProgressOutput {
  /** columns of a terminal whose last line may be rewritten; null: whole lines, seldom */
  columns: number | null
  /** text as it stands: a terminal's control characters, or a line with its newline */
  write(text: string): void
}

const livelyMs = 100
const calmMs = 10_000
/** The rate is an average over this time. */
const windowMs = 5000

export class HubProgress {
  #total = 0
  #done = 0
  #shownAt: number
  /** times and bytes received by then, for the rate */
  #samples: { at: number; received: number }[] = []
  #received = 0

  /** @param onFraction told how much is done, 0 to 1 */
  constructor(
    readonly name: string,
    private readonly output: ProgressOutput,
    private readonly onFraction: (fraction: number) => void = () => {},
    private readonly now: () => number = () => performance.now(),
  ) {
    // Whole lines have time: the first files are small, and a note says how much there is.
    this.#shownAt = output.columns === null ? now() : Number.NEGATIVE_INFINITY
  }

  /** Bytes that are still to come. */
  get left(): number {
    return Math.max(0, this.#total - this.#done)
  }

  /** Bytes that will be needed, in addition to those expected so far. */
  expect(bytes: number): void {
    this.#total += bytes
  }

  /** Bytes that were here already. */
  had(bytes: number): void {
    this.#done += bytes
    this.#show()
  }

  /** Bytes that have come. */
  add(bytes: number): void {
    this.#done += bytes
    this.#received += bytes
    this.#show()
  }

  /** Something that people should know, on a line of its own. */
  note(text: string): void {
    this.output.write(`${this.output.columns === null ? '' : '\r\x1b[K'}${this.name}: ${text}\n`)
    if (this.output.columns !== null) this.#shownAt = Number.NEGATIVE_INFINITY
  }

  /** The last line. */
  end(): void {
    if (this.#received > 0) this.#show(true)
    if (this.output.columns !== null && this.#received > 0) this.output.write('\n')
  }

  #show(last = false): void {
    const now = this.now()
    const newest = this.#samples.at(-1)
    if (newest === undefined || now - newest.at >= livelyMs) this.#samples.push({ at: now, received: this.#received })
    while ((this.#samples[1]?.at ?? now) < now - windowMs) this.#samples.shift()
    this.onFraction(this.#total > 0 ? Math.min(1, this.#done / this.#total) : 0)
    const { columns } = this.output
    if (!last && now - this.#shownAt < (columns === null ? calmMs : livelyMs)) return
    this.#shownAt = now
    this.output.write(columns === null ? `${this.#line(now)}\n` : `\r\x1b[K${this.#line(now).slice(0, columns - 1)}`)
  }

  #line(now: number): string {
    const percent = Math.floor((100 * this.#done) / Math.max(1, this.#total))
    const parts = [
      `${this.name}: ${String(percent).padStart(3)}%`,
      `${bytesText(this.#done)} of ${bytesText(this.#total)}`,
    ]
    const [oldest] = this.#samples
    const seconds = oldest === undefined ? 0 : (now - oldest.at) / 1000
    if (oldest !== undefined && seconds >= 0.5 && this.#received > oldest.received) {
      const rate = (this.#received - oldest.received) / seconds
      parts.push(`${bytesText(rate)}/s`)
      if (this.left > 0) parts.push(`${durationText(this.left / rate)} left`)
    }
    return parts.join('  ')
  }
}

/** 2780000000 → 2.8 GB */
export function bytesText(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB', 'PB']
  let value = bytes
  let unit = 0
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

/** 75 → 1:15 */
function durationText(seconds: number): string {
  const whole = Math.ceil(seconds)
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60]
  const two = (n: number) => String(n).padStart(2, '0')
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`
}
