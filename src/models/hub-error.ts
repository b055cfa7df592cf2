// What can go wrong between here and a hub.

import { ModelError } from './model-error.js'

/** A model cannot be had from the hub. The message says what to do. */
export class HubError extends ModelError {
  override name = 'HubError'
}

/** The hub cannot be reached or does not work at present: what the cache has may serve. */
export class HubUnavailable extends HubError {
  override name = 'HubUnavailable'
}

/** Worth another attempt. */
export class Transient extends Error {
  /** @param waitMs what the hub asks to wait, or null */
  constructor(
    message: string,
    readonly waitMs: number | null = null,
  ) {
    super(message)
  }
}

export const connectionCut = 'the connection was cut'

const plain: Record<string, string> = {
  ENOTFOUND: 'its name is not known',
  EAI_AGAIN: 'its name cannot be looked up',
  ECONNREFUSED: 'the connection is refused',
  ECONNRESET: connectionCut,
  UND_ERR_SOCKET: connectionCut,
  ENETUNREACH: 'there is no network',
  EHOSTUNREACH: 'there is no way to it',
  ETIMEDOUT: 'it does not answer',
  UND_ERR_CONNECT_TIMEOUT: 'it does not answer',
}

/** Why a fetch or the reading of its body failed, in a few words. */
export function networkReason(error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? ''
  return plain[code] ?? (cause instanceof Error ? cause.message : String(cause))
}
