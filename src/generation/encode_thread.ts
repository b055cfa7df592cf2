// The thread that encodes (see encoder.ts). Texts take turns of a few milliseconds, so that a short one waits for no long one.

import { parentPort, workerData } from 'node:worker_threads'
import { TimeLimitError, withinTime } from '../models/tokenizer/time-limit.js'
import { loadTokenizer, makeTokenizer, type SteppingTokenizer } from '../models/tokenizer.js'
import type { EncodeMessage, EncodeReply, EncodeThreadData } from './encoder.js'

/** Milliseconds of a turn; a step of the tokenizer that takes longer is not cut. */
const TURN_MS = 5

/**
 * Milliseconds that a turn may take at most, for a short text and for each 1000 UTF-16 units: a hundred times what they need. Only
 * regular expressions that try every way to match can take longer; models come with such, by mistake or malice.
 */
const LIMIT_MS = 1000
const LIMIT_MS_PER_1000 = 5

interface Job {
  steps: Generator<void, Int32Array>
  limitMs: number
}

const tokenizer = await tokenizerOf(workerData as EncodeThreadData)
/** The first is the next to have a turn. */
const jobs = new Map<number, Job>()
let turning = false

parentPort?.on('message', (message: EncodeMessage) => {
  if ('cancelled' in message) {
    jobs.delete(message.cancelled)
    return
  }
  const { id, text, options } = message
  jobs.set(id, {
    steps: tokenizer.encodeSteps(text, options),
    limitMs: LIMIT_MS + (text.length / 1000) * LIMIT_MS_PER_1000,
  })
  if (!turning) turn()
})

async function tokenizerOf(given: EncodeThreadData): Promise<SteppingTokenizer> {
  if ('tokenizer' in given) return makeTokenizer(given.tokenizer)
  const tokenizer = await loadTokenizer(given.folder)
  parentPort?.postMessage(tokenizer.data)
  return tokenizer
}

/** Gives the first job its turn, and the others theirs when messages have been read. */
function turn(): void {
  const first = jobs.entries().next()
  turning = !first.done
  if (first.done) return
  const [id, job] = first.value
  jobs.delete(id)
  try {
    const ids = tokenizer.hasPatterns ? withinTime(job.limitMs, () => run(job.steps)) : run(job.steps)
    if (ids === null) jobs.set(id, job)
    else reply({ id, ids }, [ids.buffer as ArrayBuffer])
  } catch (error) {
    const tookTooLong = error instanceof TimeLimitError
    const message = `The model's tokenizer was stopped: a regular expression of it takes more than ${Math.round(job.limitMs)} ms for this text.`
    reply({ id, error: tookTooLong ? message : String(error), tookTooLong })
  }
  setImmediate(turn)
}

/** @returns null when the turn is over before the text is */
function run(steps: Job['steps']): Int32Array | null {
  const end = performance.now() + TURN_MS
  do {
    const step = steps.next()
    if (step.done) return step.value
  } while (performance.now() < end)
  return null
}

function reply(message: EncodeReply, transfer: ArrayBuffer[] = []): void {
  parentPort?.postMessage(message, transfer)
}
