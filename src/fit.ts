// `parley fit`: which models fit into this machine's memory, or into memory that is given, and what of one model fits.

import { existsSync, statSync } from 'node:fs'
import { type FitOptions, OptionError, version } from './config.js'
import { findPlace, fitOf, knownFits, type Place } from './fit-plan.js'
import { modelText, type Screen, tableText } from './fit-text.js'
import { Fields } from './models/fields.js'
import { requireJson } from './models/folder.js'
import { pullConfig } from './models/hub.js'
import { HubCache } from './models/hub-cache.js'
import { type HubId, parseHubId } from './models/hub-id.js'
import { HubProgress } from './models/hub-progress.js'
import { hubSettings } from './models/hub-settings.js'
import { type KnownCheckpoint, knownCheckpoints } from './models/known-checkpoints.js'
import type { ModelOutline } from './models/model.js'
import { outlineOf, readOutline } from './models/outline.js'
import { terminalOutput } from './pull.js'

/** Of the requests that the table counts. */
const defaultTokens = 2048

/** Runs the command. Exit code 1: the model does not fit. */
export async function fitCommand(
  model: string | undefined,
  options: FitOptions,
  { json = false, all = false }: { json?: boolean; all?: boolean },
): Promise<void> {
  const found = model === undefined ? null : await findModel(model)
  const place = await findPlace(options)
  const screen: Screen = {
    columns: process.stdout.isTTY ? process.stdout.columns : Number.POSITIVE_INFINITY,
    colours: process.stdout.isTTY && !process.env.NO_COLOR,
  }
  const fit = found === null ? null : fitOf(found.id, found.outline, options, place)
  const models = fit?.fits ? [] : knownFits(options, place)
  const text = json
    ? JSON.stringify({ ...facts(place), models: fit === null ? models : [fit] }, null, 2)
    : fit === null
      ? tableText(models, place, options.max_model_len ?? defaultTokens, all, screen)
      : modelText(
          fit,
          found?.source ?? '',
          place,
          models.find(({ fits }) => fits),
          screen,
        )
  process.stdout.write(`${text}\n`)
  if (fit !== null && !fit.fits) process.exitCode = 1
}

/** The head of --json. */
function facts({ memory, devices, gpus }: Place) {
  return { version, memory_bytes: memory, devices, is_plan: devices !== null, gpus }
}

/** The outline of a folder's model, of a config.json, of one in the cache, of a known one, or of one on a hub, in this order. */
async function findModel(text: string): Promise<{ id: string; outline: ModelOutline; source: string }> {
  if (existsSync(text)) {
    if (statSync(text).isDirectory())
      return { id: text, outline: await readOutline(text), source: `${text}/config.json` }
    return { id: text, outline: outlineOf(await requireJson(text, 'a Hugging Face model config')), source: text }
  }
  const id = parseHubId(text)
  if (id !== null) {
    const settings = hubSettings(process.env)
    const cached = await new HubCache(settings.cacheFolder, id.repo).find(id)
    if (cached !== null && cached.missing !== 'config.json')
      return { id: text, outline: await readOutline(cached.folder), source: `${cached.folder}/config.json` }
  }
  const known = knownCheckpoints.filter((one) => isCalled(one, text))
  const [first] = known
  if (known.length === 1 && first !== undefined)
    return {
      id: first.id,
      outline: outlineOf(new Fields(first.id, first.config)),
      source: "Parley's table of checkpoints",
    }
  if (id === null)
    throw new OptionError(
      `fit: expected a folder, org/name of a hub or a known name, got ${JSON.stringify(text)}${suggestions(text)}`,
    )
  const folder = await download(id)
  return { id: text, outline: await readOutline(folder), source: `${folder}/config.json` }
}

/** Whether a text is a checkpoint's id, or its part behind the slash. */
function isCalled({ id }: KnownCheckpoint, text: string): boolean {
  const [wanted, whole] = [text.toLowerCase(), id.toLowerCase()]
  return whole === wanted || whole.slice(whole.indexOf('/') + 1) === wanted
}

/** Known names that have a text in them, or its longest beginning that any has. */
function suggestions(text: string): string {
  const wanted = text.toLowerCase()
  for (let length = wanted.length; length >= 3; length--) {
    const found = knownCheckpoints.filter(({ id }) => id.toLowerCase().includes(wanted.slice(0, length)))
    if (found.length > 0)
      return `; known are ${found
        .slice(0, 5)
        .map(({ id }) => id)
        .join(', ')}${found.length > 5 ? ' …' : ''}`
  }
  return '; `parley fit --all` lists the known ones'
}

async function download(id: HubId): Promise<string> {
  const output = terminalOutput() ?? { columns: null, write: (line) => process.stderr.write(line) }
  const progress = new HubProgress(id.text, output)
  const folder = await pullConfig(id, hubSettings(process.env), progress)
  progress.end()
  return folder
}
