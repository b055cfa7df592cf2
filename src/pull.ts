// `parley pull`: a model of a hub into the cache of Hugging Face's tools; `parley serve` does the same before it loads.

import { OptionError } from './config.js'
import { pullModel } from './models/hub.js'
import { type HubId, parseHubId } from './models/hub-id.js'
import { HubProgress, type ProgressOutput } from './models/hub-progress.js'
import { hubSettings } from './models/hub-settings.js'

/** @returns the model's folder; see pullModel */
export async function pull(
  id: HubId,
  environment: NodeJS.ProcessEnv,
  output: ProgressOutput,
  onFraction?: (fraction: number) => void,
  checkSmall?: (folder: string) => Promise<unknown>,
): Promise<string> {
  return pullModel(id, hubSettings(environment), new HubProgress(id.text, output, onFraction), checkSmall)
}

/** @throws OptionError for what is no name of a model on a hub */
export async function pullCommand(model: string): Promise<void> {
  const id = parseHubId(model)
  if (id === null) throw new OptionError(`pull: expected org/name or org/name@revision, got ${JSON.stringify(model)}`)
  const output = terminalOutput() ?? { columns: null, write: (line) => process.stderr.write(line) }
  const folder = await pull(id, process.env, output)
  process.stdout.write(`${folder}\n`)
}

/** The terminal on standard error, or null when it is none. */
export function terminalOutput(): ProgressOutput | null {
  const { stderr } = process
  if (!stderr.isTTY) return null
  return {
    get columns() {
      return stderr.columns ?? 80
    },
    write: (text) => stderr.write(text),
  }
}
