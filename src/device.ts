// `--device`: what computes, found out before a model is looked for.

import { flagOf, OptionError, type ServeOptions } from './config.js'
import { type CudaDevice, cudaDevices } from './engine/addon.js'

export type ChosenDevice =
  | { kind: 'cpu' /** why it is not a GPU; null: nobody asked for one */; reason: string | null }
  | {
      kind: 'cuda' /** rank i computes on the one with number i modulo their number */
      gpus: [CudaDevice, ...CudaDevice[]]
    }

/** @throws OptionError if a GPU is asked for and none can be used, with the reason and what to do */
export async function chooseDevice({
  device,
  tensor_parallel_size,
}: Pick<ServeOptions, 'device' | 'tensor_parallel_size'>): Promise<ChosenDevice> {
  if (device === 'cpu') return { kind: 'cpu', reason: null }
  try {
    const gpus = await cudaDevices(tensor_parallel_size)
    return { kind: 'cuda', gpus: gpus as [CudaDevice, ...CudaDevice[]] }
  } catch (error) {
    const reason = (error as Error).message
    if (device === 'auto') return { kind: 'cpu', reason }
    throw new OptionError(`${flagOf('device')} cuda: ${reason}`)
  }
}

/** Which kernels compute, for system_fingerprint: with the same ones, the same request has the same answer. */
export function kernelsText(device: ChosenDevice, isa: string, deterministic: boolean): string {
  if (device.kind === 'cpu') return isa
  const [{ computeCapability, hasCublasLt }] = device.gpus
  return `cuda${computeCapability}${deterministic ? '-deterministic' : hasCublasLt ? '-cublaslt' : ''}`
}
