// What config.json alone tells of a model: its spec and how many numbers it has.

import { join } from 'node:path'
import type { DType } from '../engine/contract.js'
import { type Architecture, type ConfigSpec, canonicalShape, wantedTensors } from './architecture.js'
import { architectureOf, refuseUnbuilt } from './architectures.js'
import type { Fields } from './fields.js'
import { requireJson } from './folder.js'
import type { ModelOutline } from './model.js'

/**
 * The outline of the model in a folder, of which only config.json needs to be there.
 * @throws ModelError, one line, for every config that cannot be served
 */
export async function readOutline(folder: string): Promise<ModelOutline> {
  return outlineOf(await requireJson(join(folder, 'config.json'), 'a Hugging Face model config'))
}

/** @throws ModelError as readOutline does */
export function outlineOf(config: Fields): ModelOutline {
  const { name, row } = architectureOf(config)
  refuseUnbuilt(config)
  const spec = row.spec(config)
  return {
    architecture: name,
    spec: { ...spec, num_sampled_ids: spec.vocab_size },
    checkpointDtype: storedDtype(config),
    float16Problem: row.float16Problem ?? null,
    ...countParameters(row, config, spec),
  }
}

/** What the tensors of a model's spec count. */
export function countParameters(row: Architecture, config: Fields, spec: ConfigSpec) {
  const counts = { num_parameters: 0, num_vector_parameters: 0 }
  for (const { role } of wantedTensors(row, config, spec)) {
    const [rows, cols] = canonicalShape(role, spec)
    counts.num_parameters += rows * (cols ?? 1)
    if (cols === undefined || role === 'relative_bias') counts.num_vector_parameters += rows * (cols ?? 1)
  }
  return counts
}

/** `dtype` of transformers 5, `torch_dtype` before; of a model with eyes, its text side's. */
function storedDtype(config: Fields): DType {
  const fields = [config, config.object('text_config')].filter((one) => one !== undefined)
  const names = fields.flatMap((one) => [one.text('dtype'), one.text('torch_dtype')])
  const name = names.find((one) => one !== undefined)?.replace(/^torch\./, '')
  return name === 'float16' || name === 'bfloat16' ? name : 'float32'
}
