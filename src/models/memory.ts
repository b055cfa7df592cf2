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

export interface ModelMemory extends Omit<MemoryPlan, 'matrix_bytes'> {
  weight_bytes: number
  kv_cache_bytes: number
}

/**
 * What an engine with these options takes.
 * @throws Error if the KV cache is too small for the shortest request
 */
export function modelMemory(
  model: Pick<ModelOutline, 'spec' | 'num_vector_parameters'>,
  options: StartOptions,
): ModelMemory {
  const { matrix_bytes, ...plan } = planMemory(model.spec, options)
  return {
    ...plan,
    weight_bytes: matrix_bytes + VECTOR_NUMBER * model.num_vector_parameters,
    kv_cache_bytes: plan.num_pages * plan.page_bytes,
  }
}
