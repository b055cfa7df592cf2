// How a model that is to be served shares out the memory of this machine or of its GPU, and how that is told.

import { fitOptions, flagOf, grouped, memoryText, readTable, type ServeOptions } from './config.js'
import type { ChosenDevice } from './device.js'
import type { CudaDevice } from './engine/addon.js'
import type { Place } from './fit-plan.js'
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
export function sizeHere(
  model: ModelOutline,
  options: ServeOptions,
  device: ChosenDevice,
  name: string,
): Promise<SizeHere> {
  return device.kind === 'cpu' ? sizeOnCpu(model, options, name) : sizeOnGpus(model, options, device.gpus, name)
}

async function sizeOnCpu(model: ModelOutline, options: ServeOptions, name: string): Promise<SizeHere> {
  const { bytes, bound } = freeMemory()
  const longTexts = longTextBytes(model.spec.vocab_size)
  const engine = { ...options, device: 'cpu' as const, deterministic: true }
  const sized = await orTooLarge(
    () => sizeEngine(model, engine, bytes - longTexts),
    options,
    (what, needed, largest) => {
      const inAll = `with ${memoryText(longTexts)} for long texts ${memoryText(needed + longTexts)} in all`
      return `${name} does not fit: it takes ${what}, ${inAll}, and ${memoryText(bytes)} are free ${bound}${largest({ memory: bytes, bound, devices: null, gpus: [], planner: 'cpu' })}; \`parley fit\` shows all`
    },
  )
  const others: Part = [longTexts, 'left for the encoding of long texts']
  return { ...sized, total: `${memoryText(bytes)} free ${bound}`, others, left: null }
}

async function sizeOnGpus(
  model: ModelOutline,
  options: ServeOptions,
  gpus: CudaDevice[],
  name: string,
): Promise<SizeHere> {
  const { tensor_parallel_size, gpu_memory_utilization, deterministic } = options
  const bytes = Math.min(...gpus.map(({ totalBytes }) => totalBytes))
  const free = Math.min(...gpus.map(({ freeBytes }) => freeBytes))
  const utilization = `${flagOf('gpu_memory_utilization')} ${gpu_memory_utilization}`
  const total = `${memoryText(bytes)} on ${gpus.length === 1 ? 'the' : 'each'} GPU, of which ${memoryText(bytes * gpu_memory_utilization)} may be taken (${utilization})`
  const ranks = Math.ceil(tensor_parallel_size / gpus.length)
  const budget = Math.floor(gpuBudget(bytes, gpu_memory_utilization) / ranks)
  const engine = { ...options, device: 'cuda' as const, deterministic }
  const size = () => sizeEngine(model, engine, budget, tensor_parallel_size)
  const sized = await orTooLarge(size, options, (what, needed, largest) => {
    const inAll = `with ${memoryText(cudaContextBytes)} for CUDA's context ${memoryText(ranks * needed + cudaContextBytes)} in all`
    const devices = gpus.length
    return `${name} does not fit: it takes ${what}, ${inAll}, and there are ${total}${largest({ memory: bytes, bound: null, devices, gpus: [], planner: 'cuda' })}; \`parley fit --devices ${devices}\` shows all; ${flagOf('device')} cpu serves it from the memory of the machine`
  })
  const { weight_bytes, workspace_bytes, kv_cache_bytes } = sized.memory
  const taken = ranks * (weight_bytes + workspace_bytes + kv_cache_bytes)
  if (taken > free) {
    throw new Error(
      `others use the GPU's memory: ${memoryText(free)} of ${memoryText(bytes)} are free, and ${name} would take ${memoryText(taken)}; a lower ${flagOf('gpu_memory_utilization')} makes it take less`,
    )
  }
  return {
    ...sized,
    total: ranks === 1 ? total : `${total}; what follows is of each of ${ranks} ranks on it`,
    others: [cudaContextBytes, "CUDA's context, kernels and graphs"],
    left: bytes - taken - cudaContextBytes,
  }
}

/**
 * What `size` returns.
 * @param text tells what the model takes, how many bytes it needs, and of a place the largest known model that fits
 * @throws Error with that text where the model is too large
 */
async function orTooLarge(
  size: () => Size,
  { gpu_memory_utilization }: ServeOptions,
  text: (what: string, needed: number, largest: (place: Place) => string) => string,
): Promise<Size> {
  try {
    return size()
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error
    const { knownFits } = await import('./fit-plan.js')
    const usual = { ...readTable(fitOptions, {}, {}), gpu_memory_utilization }
    const largest = (place: Place) => {
      const found = knownFits(usual, place).find(({ fits }) => fits)
      return found === undefined ? '' : `; the largest known model that fits is ${found.id}`
    }
    throw new Error(text(error.message, error.needed, largest))
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

function short(count: number): string {
  const [divisor, unit] = count >= 1e9 ? [1e9, ' billion'] : [1e6, ' million']
  return `${(count / divisor).toFixed(1)}${unit}`
}
