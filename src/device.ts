// `--device`: what computes, found out before a model is looked for.

import { flagOf, OptionError, type ServeOptions } from './config.js'
import { type CudaDevice, cudaDevices } from './engine/addon.js'
import type { EngineInfo, RankMeeting } from './engine/contract.js'

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

/** How ranks add up what they have, for the start; of one rank null. */
export const meetingTexts: Record<RankMeeting, string | null> = {
  none: null,
  threads: 'add up as threads, in memory that all of them read',
  peer_memory: "add up by kernels that read each other's GPU",
  peer_memory_nccl: "add up by kernels that read each other's GPU, from 8 MiB on by NCCL",
  host_memory: "add up by kernels through the host's memory, for the GPUs cannot read each other's",
  host_memory_nccl:
    "add up by kernels through the host's memory, for the GPUs cannot read each other's; from 8 MiB on by NCCL",
}

/** The engine's part of system_fingerprint: with the same one, the same request has the same answer. */
export function engineFingerprint(kernels: string, info: EngineInfo): string {
  const { dtype, tensor_parallel_size: ranks, rank_meeting } = info
  return `${dtype}-${kernels}${ranks > 1 ? `-tp${ranks}` : ''}${rank_meeting.endsWith('_nccl') ? '-nccl' : ''}`
}

/** Which kernels compute. */
export function kernelsText(device: ChosenDevice, isa: string, deterministic: boolean): string {
  if (device.kind === 'cpu') return isa
  const [{ computeCapability, hasCublasLt }] = device.gpus
  return `cuda${computeCapability}${deterministic ? '-deterministic' : hasCublasLt ? '-cublaslt' : ''}`
}
