// A GPU that computes something else than the CPU is found out before it serves: kernels, driver and hardware are of many kinds.

import { flagOf, type ServeOptions, serveOptions } from './config.js'
import type { ChosenDevice } from './device.js'
import { forwardLogits } from './engine/addon.js'
import type { DType } from './engine/contract.js'
import { loadModel } from './models/load.js'

/** So many rows in a step, and then one: the kernels of prompts, large enough for cuBLASLt, and those of single tokens. */
const stepRows = 80

/** Of the largest logit. Rounding to 16 bits makes 0.005 of it (bfloat16, through the emulator); a wrong kernel makes 1. */
const allowed = 0.02

/** How it will serve. */
interface Serving extends Pick<ServeOptions, 'deterministic'> {
  dtype: DType
}

/**
 * Compares logits of the bundled model's first block, computed on the GPUs and on the CPU. The GPUs are ranks, as many at a time as the model has
 * heads.
 * @returns `device`, or the CPU where a GPU was nobody's wish
 * @throws Error if --device cuda asks for a GPU that fails
 */
export async function checkedDevice(
  device: ChosenDevice,
  wish: ServeOptions['device'],
  serving: Serving,
): Promise<ChosenDevice> {
  if (device.kind === 'cpu') return device
  const problem = await gpuProblem(device.gpus.length, serving)
  if (problem === null) return device
  if (wish === 'auto') return { kind: 'cpu', reason: problem }
  throw new Error(`${flagOf('device')} cuda: ${problem}`)
}

async function gpuProblem(numGpus: number, serving: Serving): Promise<string | null> {
  const { spec, tensors, files } = await loadModel(serveOptions.model.default)
  const block = { spec: { ...spec, num_layers: 1 }, tensors: tensors.filter(({ layer }) => layer === 0), files }
  const tokens = Int32Array.from({ length: stepRows + 1 }, (_, i) => (977 * i + 11) % spec.vocab_size)
  const options = {
    ...serving,
    max_model_len: 2 * stepRows,
    max_num_seqs: 1,
    max_num_batched_tokens: stepRows,
    kv_cache_bytes: 1 << 20,
  }
  const expected = forwardLogits(block, options, tokens)
  for (let first_gpu = 0; first_gpu < numGpus; first_gpu += spec.num_heads) {
    const tensor_parallel_size = Math.min(spec.num_heads, numGpus - first_gpu)
    const last = first_gpu + tensor_parallel_size - 1
    const name =
      numGpus === 1 ? 'the GPU' : first_gpu === last ? `GPU ${last}` : `one of the GPUs ${first_gpu} to ${last}`
    let found: Float32Array
    try {
      found = forwardLogits(block, { ...options, device: 'cuda', first_gpu, tensor_parallel_size }, tokens)
    } catch (error) {
      return `${name} failed in a test at start: ${(error as Error).message}`
    }
    const { worst, largest } = compared(found, expected)
    if (!(worst <= allowed * largest))
      return `${name} computes otherwise than the CPU: logits of the bundled model differ by ${worst.toPrecision(3)}, ${(allowed * largest).toPrecision(3)} are allowed`
  }
  return null
}

/** The largest of `expected`, and of the differences from it, which is NaN where there is one. */
function compared(found: Float32Array, expected: Float32Array): { worst: number; largest: number } {
  let largest = 0
  let worst = 0
  for (const [i, logit] of expected.entries()) {
    largest = Math.max(largest, Math.abs(logit))
    worst = Math.max(worst, Math.abs((found[i] as number) - logit))
  }
  return { worst, largest }
}
