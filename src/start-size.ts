// How a model that is to be served shares out the memory of this machine or of its GPU, and how that is told.

import { fitOptions, flagOf, memoryText, readTable, type ServeOptions } from './config.js'
import type { ChosenDevice } from './device.js'
import { freeMemory } from './machine.js'
import { longTextBytes } from './models/memory.js'
import type { Model, ModelOutline } from './models/model.js'
import { cudaContextBytes, gpuBudget, type Size, sizeEngine, TooLarge } from './sizing.js'

/** Bytes beside the engine's own, and what they are for. */
type Part = [bytes: number, what: string]

/** A size with where its memory is. */
export interface SizeHere extends Size {
  /** completes "memory   ": how much there is, and where */
  total: string
  /** what is kept beside the engine's own */
  others: Part
  /** what nobody takes; null where the rest is not this server's to count */
  left: number | null
}

/**
 * The engine's options and memory.
 * @param name for the message
 * @throws Error for a model that does not fit
 */
export async function sizeHere(
  model: ModelOutline,
  options: ServeOptions,
  device: ChosenDevice,
  name: string,
): Promise<SizeHere> {
  const { deterministic } = options
  if (device.kind === 'cpu') {
    const free = freeMemory()
    const others: Part = [longTextBytes(model.spec.vocab_size), 'left for the encoding of long texts']
    const size = () => sizeEngine(model, { ...options, device: 'cpu', deterministic: true }, free.bytes - others[0])
    const there = `${memoryText(free.bytes)} are free ${free.bound}`
    const sized = await orTooLarge(size, { name, options, there, others: others[0], place: free })
    return { ...sized, total: `${memoryText(free.bytes)} free ${free.bound}`, others, left: null }
  }
  const { gpus } = device
  const ranks = options.tensor_parallel_size
  const utilization = options.gpu_memory_utilization
  const totalBytes = Math.min(...gpus.map((gpu) => gpu.totalBytes))
  const freeBytes = Math.min(...gpus.map((gpu) => gpu.freeBytes))
  const onEach = Math.ceil(ranks / gpus.length)
  const others: Part = [cudaContextBytes, "CUDA's context, kernels and graphs"]
  const total = `${memoryText(totalBytes)} on ${gpus.length === 1 ? 'the' : 'each'} GPU, of which ${memoryText(totalBytes * utilization)} may be taken (${flagOf('gpu_memory_utilization')} ${utilization})${onEach === 1 ? '' : `; what follows is of each of ${onEach} ranks on it`}`
  const budget = Math.floor(gpuBudget(totalBytes, utilization) / onEach)
  const size = () => sizeEngine(model, { ...options, device: 'cuda', deterministic }, budget, ranks)
  const sized = await orTooLarge(size, {
    name,
    options,
    there: `there are ${total}`,
    others: cudaContextBytes,
    place: { bytes: totalBytes, devices: gpus.length },
  })
  const { weight_bytes, workspace_bytes, kv_cache_bytes } = sized.memory
  const engine = onEach * (weight_bytes + workspace_bytes + kv_cache_bytes)
  if (engine > freeBytes) {
    throw new Error(
      `others use the GPU's memory: ${memoryText(freeBytes)} of ${memoryText(totalBytes)} are free, and ${name} would take ${memoryText(engine)}; a lower ${flagOf('gpu_memory_utilization')} makes it take less`,
    )
  }
  return { ...sized, total, others, left: totalBytes - engine - cudaContextBytes }
}

interface Refusal {
  name: string
  options: ServeOptions
  /** completes "and …": how much memory there is */
  there: string
  others: number
  place: { bytes: number; devices?: number }
}

/** What `size` returns; where the model is too large, an Error that says what it takes, what there is and what would fit. */
async function orTooLarge(size: () => Size, { name, options, there, others, place }: Refusal): Promise<Size> {
  try {
    return size()
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error
    const { knownFits } = await import('./fit-plan.js')
    const usual = readTable(fitOptions, { gpu_memory_utilization: String(options.gpu_memory_utilization) }, {})
    const devices = place.devices ?? null
    const largest = knownFits(usual, { memory: place.bytes, bound: null, devices, gpus: [] }).find(({ fits }) => fits)
    const known = largest === undefined ? '' : `; the largest known model that fits is ${largest.id}`
    throw new Error(
      `${name} does not fit: it takes ${error.message}, with ${memoryText(others)} for ${devices === null ? 'long texts' : "CUDA's context"} ${memoryText(error.needed + others)} in all, and ${there}${known}; \`parley fit${devices === null ? '' : ` --devices ${devices}`}\` shows all${devices === null ? '' : `; ${flagOf('device')} cpu serves it from the memory of the machine`}`,
    )
  }
}

/** What the person at the terminal should know of a model before it is loaded: what it is and where the memory goes. */
export function modelLines(model: Model, { memory, options, total, others, left }: SizeHere): string[] {
  const { max_position } = model.spec
  const { num_pages, page_size, max_model_len } = memory
  const tokens = num_pages * page_size
  const requests = Math.min(Math.max(1, Math.floor(tokens / max_model_len)), options.max_num_seqs)
  const part = (bytes: number, what: string) => `           ${memoryText(bytes).padStart(8)} ${what}`
  return [
    `  model    ${model.architecture}, ${short(model.num_parameters)} parameters in ${options.dtype}`,
    ...(model.float16Problem === null ? [] : [`           not float16, because ${model.float16Problem}`]),
    `  context  ${grouped(max_model_len)} tokens${max_model_len < max_position ? ` of the model's ${grouped(max_position)}` : ''}`,
    `  memory   ${total}`,
    part(memory.weight_bytes, 'weights'),
    part(memory.workspace_bytes, 'workspace'),
    part(...others),
    part(
      memory.kv_cache_bytes,
      `KV pages: ${grouped(tokens)} tokens, ${requests === 1 ? 'one request' : `${requests} requests`} of ${grouped(max_model_len)} at the same time`,
    ),
    ...(left === null ? [] : [part(left, 'left')]),
  ]
}

/** 131072 → 131,072 */
function grouped(count: number): string {
  return count.toLocaleString('en-US')
}

function short(count: number): string {
  const [divisor, unit] = count >= 1e9 ? [1e9, ' billion'] : [1e6, ' million']
  return `${(count / divisor).toFixed(1)}${unit}`
}
