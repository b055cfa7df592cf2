// The thread that encodes long text (see encoder.ts).

import { parentPort, workerData } from 'node:worker_threads'
import { loadTokenizer } from '../models/tokenizer.js'
import { type EncodeJob, type EncodeReply, encodePieces } from './encoder.js'

const tokenizer = loadTokenizer(workerData as string)

parentPort?.on('message', async ({ id, pieces, addSpecialTokens }: EncodeJob) => {
  try {
    const ids = encodePieces(await tokenizer, pieces, addSpecialTokens)
    parentPort?.postMessage({ id, ids } satisfies EncodeReply, [ids.buffer as ArrayBuffer])
  } catch (error) {
    parentPort?.postMessage({ id, error: error instanceof Error ? error.message : String(error) } satisfies EncodeReply)
  }
})
