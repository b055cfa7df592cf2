// A GPU that computes something else than the CPU is found out before it serves: kernels, driver and hardware are of many kinds.

import { flagOf, type ServeOptions, serveOptions } from './config.js'
import type { ChosenDevice } from './device.js'
import { forwardLogits } from './engine/addon.js'
import { loadModel } from './models/load.js'

/** So many rows in a step, and then one: the kernels of prompts and those of single tokens. */
const stepRows = 16

/** Of the largest logit. Rounding to 16 bits makes 0.005 of it (bfloat16, through the emulator); a wrong kernel makes 1. */
const allowed = 0.02

/**
 * Compares logits of the bundled model's first block, computed on the first GPU and on the CPU.
 * @returns `device`, or the CPU where a GPU was nobody's wish
 * @throws Error if --device cuda asks for a GPU that fails
 */
export async function checkedDevice(
  device: ChosenDevice,
  { device: wish, dtype }: Pick<ServeOptions, 'device' | 'dtype'>,
): Promise<ChosenDevice> {
  if (device.kind === 'cpu') return device
  const problem = await gpuProblem(dtype === 'auto' ? 'float16' : dtype)
  if (problem === null) return device
  if (wish === 'auto') return { kind: 'cpu', reason: problem }
  throw new Error(`${flagOf('device')} cuda: ${problem}`)
}

async function gpuProblem(dtype: 'float16' | 'bfloat16' | 'float32'): Promise<string | null> {
  const { spec, tensors, files } = await loadModel(serveOptions.model.default)
  const block = { spec: { ...spec, num_layers: 1 }, tensors: tensors.filter(({ layer }) => layer === 0), files }
  const tokens = Int32Array.from({ length: stepRows + 1 }, (_, i) => (977 * i + 11) % spec.vocab_size)
  const options = {
    dtype,
    max_model_len: 2 * stepRows,
    max_num_seqs: 1,
    max_num_batched_tokens: stepRows,
    kv_cache_bytes: 1 << 20,
  }
  const expected = forwardLogits(block, options, tokens)
  let found: Float32Array
  try {
    found = forwardLogits(block, { ...options, device: 'cuda', deterministic: false }, tokens)
  } catch (error) {
    return `the GPU failed in a test at start: ${(error as Error).message}`
  }
  let largest = 0
  let worst = 0
  for (const [i, logit] of expected.entries()) {
    largest = Math.max(largest, Math.abs(logit))
    const difference = Math.abs((found[i] as number) - logit)
    if (!(difference <= worst)) worst = difference // also keeps NaN
  }
  if (worst <= allowed * largest) return null
  return `the GPU computes otherwise than the CPU: logits of the bundled model differ by ${worst.toPrecision(3)}, ${(allowed * largest).toPrecision(3)} are allowed`
}
