// How the memory of a machine is shared out: weights and workspace first, KV pages from what is left. `parley serve` starts by it and
// `parley fit` foretells it.

import { flagOf, kvCacheBytes, memoryText, OptionError, type ServeOptions } from './config.js'
import type { StartOptions } from './engine/addon.js'
import type { DType } from './engine/contract.js'
import { availableCores } from './machine.js'
import { type ModelMemory, modelMemory } from './models/memory.js'
import type { ModelOutline } from './models/model.js'

/** The options that decide about memory. */
export type SizeOptions = Pick<
  ServeOptions,
  | 'dtype'
  | 'isa'
  | 'threads'
  | 'tensor_parallel_size'
  | 'max_model_len'
  | 'max_num_seqs'
  | 'max_num_batched_tokens'
  | 'kv_cache_memory'
> &
  Pick<StartOptions, 'device' | 'deterministic'>

/** How an engine is started, and what it then holds. */
export interface Size {
  options: StartOptions & Pick<ServeOptions, 'max_num_seqs'> & { dtype: DType }
  /** of each device, if there are several */
  memory: ModelMemory
  /** bytes for the weights, the workspace and the fewest KV pages */
  needed: number
}

/** A server that cannot hold a request of so many tokens is of no use, unless the model's context is shorter or somebody asks for it. */
const shortestContext = 512

/**
 * What a GPU's context, its kernels, their graphs and CUDA's libraries take, of which nothing is given to KV pages: an assumption, for no GPU
 * was there to be asked.
 */
export const cudaContextBytes = 600 * 2 ** 20

/** Bytes that weights, workspace and KV pages may take of a GPU's memory; below 0 if it is too small for anything. */
export function gpuBudget(totalBytes: number, utilization: number): number {
  return Math.floor(totalBytes * utilization) - cudaContextBytes
}

/** A model is too large for the memory that there is. */
export class TooLarge extends Error {
  /**
   * @param needed bytes for the weights, the workspace and the fewest KV pages
   * @param memory what they would take, with more pages than there can be
   */
  constructor(
    message: string,
    readonly needed: number,
    readonly memory: ModelMemory,
  ) {
    super(message)
  }
}

type SizedModel = Pick<ModelOutline, 'spec' | 'num_vector_parameters' | 'checkpointDtype' | 'float16Problem'>

/**
 * The type of weights and KV pages. `auto`: the checkpoint's, or the half of float32 that is safe for the model.
 * @throws OptionError for float16 where it gives wrong numbers
 */
export function engineDtype(
  option: DType | 'auto',
  { checkpointDtype, float16Problem }: Pick<SizedModel, 'checkpointDtype' | 'float16Problem'>,
): DType {
  if (option === 'float16' && float16Problem !== null)
    throw new OptionError(`${flagOf('dtype')}: expected bfloat16 or float32, because ${float16Problem}, got float16`)
  if (option !== 'auto') return option
  return checkpointDtype === 'bfloat16' || float16Problem !== null ? 'bfloat16' : 'float16'
}

/**
 * Shares `free` bytes out.
 * @param devices that have a rank each, `free` being of each of them; null: all ranks share `free`
 * @throws TooLarge if the weights do not fit, or no page beside them
 * @throws OptionError for a context that the model was not made for, or more ranks than it has heads
 */
export function sizeEngine(model: SizedModel, options: SizeOptions, free: number, devices: number | null = null): Size {
  const { spec } = model
  // A longer context would change the rotation of short requests too: it is for those who ask for it.
  const usual = spec.long_rope_above > 0 ? Math.min(spec.long_rope_above, spec.max_position) : spec.max_position
  const max_model_len = options.max_model_len ?? usual
  if (max_model_len > spec.max_position) {
    throw new OptionError(
      `${flagOf('max_model_len')}: expected at most ${spec.max_position}, the model's context, got ${max_model_len}`,
    )
  }
  const tensor_parallel_size = devices ?? options.tensor_parallel_size
  if (tensor_parallel_size > spec.num_heads) {
    throw new OptionError(
      `${flagOf('tensor_parallel_size')}: expected at most ${spec.num_heads}, the model's number of heads, got ${tensor_parallel_size}`,
    )
  }
  const fixed = {
    ...(options.device !== undefined && { device: options.device }),
    ...(options.deterministic !== undefined && { deterministic: options.deterministic }),
    dtype: engineDtype(options.dtype, model),
    isa: options.isa,
    num_threads: options.threads ?? availableCores(),
    tensor_parallel_size,
    max_model_len,
    max_num_seqs: options.max_num_seqs,
    max_num_batched_tokens: options.max_num_batched_tokens,
  }
  const all = (kv_cache_bytes: number) => modelMemory(model, { ...fixed, kv_cache_bytes })
  /** what shares `free` */
  const together = (memory: ModelMemory) => (devices === null ? memory : { ...memory, ...memory.largest_rank })
  const allUnbounded = all(2 ** 46)
  const unbounded = together(allUnbounded)
  const { page_bytes, page_size, weight_bytes, workspace_bytes } = unbounded
  const left = free - weight_bytes - workspace_bytes
  // Pages are filled in whole, and a prompt that is encoded has pages of its own.
  const more = spec.num_encoder_layers > 0 ? 2 : 1
  const pagesOf = (tokens: number) => Math.ceil(tokens / page_size) + more
  const useful = options.max_num_seqs * pagesOf(max_model_len) * page_bytes
  // A GPU's budget leaves room for others already.
  const wanted = options.kv_cache_memory ?? { fraction: devices === null ? 0.8 : 1 }
  const asked = kvCacheBytes(wanted, left, useful)
  const isPart = 'fraction' in wanted
  const least = isPart ? pagesOf(Math.min(max_model_len, shortestContext)) * page_bytes : asked
  const needed = weight_bytes + workspace_bytes + least
  if (left < least) {
    const parts = [
      `${memoryText(weight_bytes)} of weights`,
      `${memoryText(workspace_bytes)} of workspace`,
      `${memoryText(least)} of KV pages${isPart ? ' at least' : ''}`,
    ]
    const text = `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`
    throw new TooLarge(text, needed, unbounded)
  }
  const num_pages = Math.floor(Math.max(asked, least) / page_bytes)
  if (num_pages <= more) {
    throw new OptionError(
      `${flagOf('kv_cache_memory')}: expected room for ${more + 1} pages of ${memoryText(page_bytes)}, got ${memoryText(asked)}`,
    )
  }
  const engineOptions = { ...fixed, kv_cache_bytes: num_pages * allUnbounded.page_bytes }
  return { options: engineOptions, memory: together(all(engineOptions.kv_cache_bytes)), needed }
}
