// The variables of Hugging Face's own tools, so that a machine set up for those is set up for Parley.

import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { describe, ModelError } from './model-error.js'

export interface HubSettings {
  /** without a slash at its end */
  endpoint: string
  token: string | null
  /** the folder of models--org--name folders */
  cacheFolder: string
  offline: boolean
}

type Environment = Readonly<Record<string, string | undefined>>

/**
 * HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_TOKEN_PATH, HF_HUB_DISABLE_IMPLICIT_TOKEN, HF_HUB_OFFLINE, their older spellings,
 * and the defaults of huggingface_hub.
 */
export function hubSettings(environment: Environment): HubSettings {
  const get = (...names: string[]) => names.map((name) => environment[name]?.trim()).find((value) => value)
  const path = (...names: string[]) => get(...names)?.replace(/^~(?=\/|$)/, homedir())
  const home = path('HF_HOME') ?? join(path('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface')
  const isOn = (name: string) => /^(1|on|yes|true)$/i.test(get(name) ?? '')
  const token = isOn('HF_HUB_DISABLE_IMPLICIT_TOKEN')
    ? undefined
    : (get('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN') ?? readToken(path('HF_TOKEN_PATH') ?? join(home, 'token')))
  // It goes into a header: a line break or a control character in it is a mistake in the variable, and is not shown.
  if (token !== undefined && !/^[\x21-\x7e]+$/.test(token))
    throw new ModelError('HF_TOKEN: expected printable characters without spaces, found others')
  return {
    endpoint: checkEndpoint(get('HF_ENDPOINT') ?? 'https://huggingface.co'),
    token: token ?? null,
    cacheFolder: path('HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE') ?? join(home, 'hub'),
    offline: isOn('HF_HUB_OFFLINE') || isOn('TRANSFORMERS_OFFLINE'),
  }
}

/** The token that `hf auth login` has left. */
function readToken(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8').trim() || undefined
  } catch {
    return undefined
  }
}

function checkEndpoint(text: string): string {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || !/^https?:$/.test(url.protocol) || url.search !== '' || url.username !== '') {
    throw new ModelError(`HF_ENDPOINT: expected a URL such as https://huggingface.co, found ${describe(text)}`)
  }
  return text.replace(/\/+$/, '')
}
