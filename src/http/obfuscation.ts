// stream_options.include_obfuscation: who sees only the sizes of encrypted events cannot tell the lengths of the tokens in them.

import { randomBytes } from 'node:crypto'

/** More than the JSON of a delta of one token without log-probabilities. */
const blockBytes = 128

/** So many random characters that an event's JSON with `varying` in it, all that differs from one to the next, fills whole blocks. */
export function obfuscation(varying: object): { obfuscation: string } {
  const length = blockBytes - (Buffer.byteLength(JSON.stringify(varying)) % blockBytes)
  return {
    obfuscation: randomBytes(blockBytes).toString('base64url').slice(0, length),
  }
}
