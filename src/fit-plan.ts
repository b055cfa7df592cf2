// Which models fit into which memory: figures, no text.

import { type FitOptions, flagOf, OptionError } from './config.js'
import { chooseDevice } from './device.js'
import type { Device, DType } from './engine/contract.js'
import { findGpus, freeMemory, type Gpu } from './machine.js'
import { Fields } from './models/fields.js'
import { knownCheckpoints } from './models/known-checkpoints.js'
import { longTextBytes, type ModelMemory, processBytes } from './models/memory.js'
import type { ModelOutline } from './models/model.js'
import { outlineOf } from './models/outline.js'
import { cudaContextBytes, engineDtype, gpuBudget, sizeEngine, TooLarge } from './sizing.js'

/** What is planned for. */
export interface Place {
  /** bytes, of each device if there are several */
  memory: number
  /** completes "22.6 GiB free"; null where the memory was given */
  bound: string | null
  /** GPUs; null for the CPU */
  devices: number | null
  /** of this machine, where they were looked for */
  gpus: Gpu[]
  /** whose kernels tell what they keep in memory: for GPUs that are not here the CPU's, which differs by some ten MiB */
  planner: Device
}

/** Requests of so many tokens each, and how many of them run at the same time. */
export interface Load {
  tokens: number
  at_once: number
}

/** What of a model fits. Names and units are those of --json; bytes are of each device if there are several. */
export interface Fit {
  id: string
  architecture: string
  num_parameters: number
  dtype: DType
  /** null: float16 is safe */
  float16_problem: string | null
  /** tokens that the model was made for */
  max_position: number
  fits: boolean
  /** with a request of 4,096 tokens, or of the longest that it is asked for or made for */
  fits_amply: boolean
  /** devices between which it is split: the fewest that it fits amply, or those that there are */
  tensor_parallel_size: number
  weight_bytes: number
  workspace_bytes: number
  /** what the process takes besides, … */
  process_bytes: number
  /** … and what it takes more when it encodes long texts */
  long_text_bytes: number
  /** all that, with the fewest KV pages that are of use */
  needed_bytes: number
  kv_bytes_per_token: number
  /** The KV pages, which take a part of what is left; 0 where the model does not fit. */
  kv_cache_bytes: number
  kv_cache_tokens: number
  /** longest request in tokens; 0 where the model does not fit */
  max_model_len: number
  /** how many requests of some lengths run at the same time */
  loads: Load[]
}

/** More than any machine has. */
const mostDevices = 64

/** A context that is enough for most, so that no more devices are taken for a longer one. */
export const ampleContext = 4096

/**
 * Where a server with these options would compute, or what is asked for in its place.
 * @throws OptionError for devices of unknown memory, and where --device cuda finds no GPU
 */
export async function findPlace({ memory, devices, device }: FitOptions): Promise<Place> {
  if (memory !== null) return { memory, bound: null, devices, gpus: [], planner: 'cpu' }
  if (devices === null) {
    const chosen = await chooseDevice({ device, tensor_parallel_size: mostDevices })
    if (chosen.kind === 'cuda') {
      return placeOf(
        chosen.gpus.map(({ name, totalBytes }) => ({ name, bytes: totalBytes })),
        'cuda',
      )
    }
  }
  const gpus = await findGpus()
  if (devices === null) {
    const free = freeMemory()
    return { memory: free.bytes, bound: free.bound, devices, gpus, planner: 'cpu' }
  }
  if (gpus.length < devices) {
    const found = gpus.length === 0 ? 'no GPU' : `${gpus.length} of them`
    throw new OptionError(
      `${flagOf('devices')}: expected ${flagOf('memory')} with it, the memory of each (nvidia-smi lists ${found} here)`,
    )
  }
  return { ...placeOf(gpus, 'cpu'), devices }
}

/** All of these GPUs. */
function placeOf(gpus: Gpu[], planner: Device): Place {
  return { memory: Math.min(...gpus.map(({ bytes }) => bytes)), bound: null, devices: gpus.length, gpus, planner }
}

/** What of one model fits. @throws OptionError for options that do not suit the model */
export function fitOf(id: string, model: ModelOutline, options: FitOptions, place: Place): Fit {
  const { spec } = model
  const onCpu = place.devices === null
  const process_bytes = onCpu ? processBytes(spec.vocab_size) : cudaContextBytes
  const long_text_bytes = onCpu ? longTextBytes(spec.vocab_size) : 0
  const { gpu_memory_utilization } = options
  const free = onCpu ? place.memory - process_bytes - long_text_bytes : gpuBudget(place.memory, gpu_memory_utilization)
  const inAll = (needed: number) =>
    onCpu ? needed + process_bytes + long_text_bytes : Math.ceil((needed + process_bytes) / gpu_memory_utilization)
  const common = {
    id,
    architecture: model.architecture,
    num_parameters: model.num_parameters,
    dtype: engineDtype(options.dtype, model),
    float16_problem: model.float16Problem,
    max_position: spec.max_position,
  }
  const memoryOf = ({ weight_bytes, workspace_bytes, page_bytes, page_size }: ModelMemory) => ({
    weight_bytes,
    workspace_bytes,
    process_bytes,
    long_text_bytes,
    kv_bytes_per_token: page_bytes / page_size,
  })
  const planned = { ...options, device: place.planner, deterministic: false }
  let best: Fit | null = null
  let tooLarge: TooLarge | null = null
  const splits = onCpu ? [options.tensor_parallel_size] : tensorParallelSizes(place, spec.num_heads)
  for (const tensor_parallel_size of splits) {
    try {
      const size = sizeEngine(model, planned, free, onCpu ? null : tensor_parallel_size)
      const { memory } = size
      best = {
        ...common,
        fits: true,
        fits_amply: memory.max_model_len >= Math.min(ampleContext, size.options.max_model_len),
        tensor_parallel_size,
        ...memoryOf(memory),
        needed_bytes: inAll(size.needed),
        kv_cache_bytes: memory.kv_cache_bytes,
        kv_cache_tokens: memory.num_pages * memory.page_size,
        max_model_len: memory.max_model_len,
        loads: loadsOf(model, memory, options),
      }
      if (best.fits_amply) return best
    } catch (error) {
      if (!(error instanceof TooLarge)) throw error
      tooLarge = error
    }
  }
  if (best !== null) return best
  const { memory, needed } = tooLarge as TooLarge
  return {
    ...common,
    fits: false,
    fits_amply: false,
    tensor_parallel_size: splits.at(-1) ?? 1,
    ...memoryOf(memory),
    needed_bytes: inAll(needed),
    kv_cache_bytes: 0,
    kv_cache_tokens: 0,
    max_model_len: 0,
    loads: [],
  }
}

/** 1, 2, 4 … of the devices, as long as each has a head. */
function tensorParallelSizes({ devices }: Place, numHeads: number): number[] {
  const sizes = [1]
  for (let size = 2; size <= Math.min(devices ?? 1, numHeads); size *= 2) sizes.push(size)
  return sizes
}

function loadsOf({ spec }: ModelOutline, memory: ModelMemory, options: FitOptions): Load[] {
  const { page_size, num_pages, max_model_len } = memory
  const wanted = options.max_model_len === null ? [512, 2048, 8192, 32768, 131072, max_model_len] : [max_model_len]
  const lengths = [...new Set(wanted)].filter((tokens) => tokens <= max_model_len).sort((a, b) => a - b)
  return lengths.map((tokens) => {
    const pages = Math.ceil(tokens / page_size) + (spec.num_encoder_layers > 0 ? 1 : 0)
    return { tokens, at_once: Math.max(1, Math.min(options.max_num_seqs, Math.floor(num_pages / pages))) }
  })
}

/**
 * All known checkpoints, the largest first. A context or a type that does not suit one gives way to what does; one whose pages are larger
 * than the KV memory that was asked for is left out.
 * @throws OptionError where that leaves none that fits
 */
export function knownFits(options: FitOptions, place: Place): Fit[] {
  let refusal: OptionError | null = null
  const fits = knownCheckpoints.flatMap(({ id, config }) => {
    const model = outlineOf(new Fields(id, config))
    const { dtype, max_model_len } = options
    const suited = {
      ...options,
      dtype: dtype === 'float16' && model.float16Problem !== null ? ('auto' as const) : dtype,
      max_model_len: max_model_len === null ? null : Math.min(max_model_len, model.spec.max_position),
    }
    try {
      return [fitOf(id, model, suited, place)]
    } catch (error) {
      if (!(error instanceof OptionError)) throw error
      refusal = error
      return []
    }
  })
  if (refusal !== null && !fits.some((fit) => fit.fits)) throw refusal
  return fits.sort((a, b) => b.num_parameters - a.num_parameters)
}
