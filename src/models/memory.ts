// How much memory a model takes, from its outline: exactly what the engine will say of itself (EngineInfo).

import { planMemory, type StartOptions } from '../engine/addon.js'
import type { MemoryPlan } from '../engine/contract.js'
import type { ModelOutline } from './model.js'

/** Bytes of a number in a norm or a bias, whatever the type of the matrices. */
const VECTOR_NUMBER = 4

/**
 * What the server's process takes besides, Node and the tokenizer: measured after start and 40 requests with the tokenizers of GPT-2, T5,
 * Mistral, Phi-3 and Qwen (32,000 to 152,000 ids, 130 to 320 MB).
 */
export function processBytes(vocab_size: number): number {
  return 96 * 2 ** 20 + 1536 * vocab_size
}

/**
 * What its thread for the encoding of long texts takes more, which has a tokenizer of its own: measured with a text of 400,000 characters
 * and the same tokenizers and tales' (26 to 231 MB).
 */
export function longTextBytes(vocab_size: number): number {
  return 24 * 2 ** 20 + 1536 * vocab_size
}

/** Bytes; of all ranks together, or of one. */
interface RankMemory {
  weight_bytes: number
  workspace_bytes: number
  page_bytes: number
  kv_cache_bytes: number
}

export interface ModelMemory
  extends RankMemory,
    Pick<MemoryPlan, 'page_size' | 'num_pages' | 'max_model_len' | 'scratch_bytes'> {
  largest_rank: RankMemory
}

/**
 * What an engine with these options takes. Of several ranks' weights it is the most that they can be: what of norms and biases each has
 * depends on the checkpoint, and is little.
 * @throws Error if the KV cache is too small for the shortest request
 */
export function modelMemory(
  model: Pick<ModelOutline, 'spec' | 'num_vector_parameters'>,
  options: StartOptions,
): ModelMemory {
  const plan = planMemory(model.spec, options)
  const { page_size, num_pages, max_model_len, scratch_bytes } = plan
  const vectors = VECTOR_NUMBER * model.num_vector_parameters
  const rankMemory = (matrices: number, workspace_bytes: number, page_bytes: number, ranks: number): RankMemory => ({
    weight_bytes: matrices + ranks * vectors,
    workspace_bytes,
    page_bytes,
    kv_cache_bytes: num_pages * page_bytes,
  })
  return {
    page_size,
    num_pages,
    max_model_len,
    scratch_bytes,
    ...rankMemory(plan.matrix_bytes, plan.workspace_bytes, plan.page_bytes, options.tensor_parallel_size ?? 1),
    largest_rank: rankMemory(plan.rank_matrix_bytes, plan.rank_workspace_bytes, plan.rank_page_bytes, 1),
  }
}
