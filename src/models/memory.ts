// How much memory a model takes, from its outline: exactly what the engine will say of itself (EngineInfo).

import { planMemory, type StartOptions } from '../engine/addon.js'
import type { MemoryPlan } from '../engine/contract.js'
import type { ModelOutline } from './model.js'

/** Bytes of a number in a norm or a bias, whatever the type of the matrices. */
const VECTOR_NUMBER = 4

export interface ModelMemory extends Pick<MemoryPlan, 'num_pages' | 'page_size' | 'max_model_len' | 'workspace_bytes'> {
  weight_bytes: number
  kv_cache_bytes: number
  page_bytes: number
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
