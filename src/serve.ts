// `parley serve`: listens first, then loads the model, then answers.

import { existsSync } from 'node:fs'
import { basename, resolve } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { type ServeOptions, version } from './config.js'
import { chooseDevice, engineFingerprint, kernelsText, meetingTexts } from './device.js'
import { startEngine, stopLoading } from './engine/addon.js'
import { Encoder } from './generation/encoder.js'
import { Generation } from './generation/generate.js'
import { checkedDevice } from './gpu-check.js'
import { createLog } from './log.js'
import { parseHubId } from './models/hub-id.js'
import { loadModel } from './models/load.js'
import { readOutline } from './models/outline.js'
import { engineDtype } from './sizing.js'
import { modelLines, sizeHere } from './start-size.js'

/**
 * Serves until a signal comes.
 * @throws Error with a message for the person at the terminal, before the server is ready
 */
export async function serve(options: ServeOptions): Promise<void> {
  // Some seconds into a quiet time V8 would collect and compact the whole heap at once, to give memory back: with 10,000 idle connections
  // that stopped the event loop for 124 ms.
  setFlagsFromString('--no-memory-reducer')
  const say = (line: string) => {
    if (options.log_level === 'debug' || options.log_level === 'info') process.stdout.write(`${line}\n`)
  }
  const template =
    options.chat_template === null
      ? null
      : await (await import('./template_option.js')).readTemplateOption(options.chat_template)
  const hubId = existsSync(options.model) ? null : parseHubId(options.model)
  const modelName = options.served_model_name ?? hubId?.text ?? basename(resolve(options.model))
  const startEncoder = (folder: string) => {
    const starting = Encoder.read(folder, new URL('./generation/encode_thread.js', import.meta.url))
    starting.catch(() => {}) // loadModel tells what is wrong with a folder, in its order
    return starting
  }
  // One of 50,000 tokens takes 0.3 s: a thread reads it, while this one is busy with HTTP's modules.
  const early = hubId === null ? startEncoder(options.model) : null
  const { listen } = await import('./listen.js')
  const { state, address } = await listen(options, modelName, createLog(options.log_level))

  const chosen = await chooseDevice(options)
  let folder = options.model
  if (hubId !== null) {
    say(`parley ${version} listens on ${address} and looks for ${hubId.text} on the hub`)
    const { pull, terminalOutput } = await import('./pull.js')
    // Where the log is JSON, so is the progress.
    const output = terminalOutput() ?? {
      columns: null,
      write: (line) => state.log('info', 'download', { progress: line.trimEnd() }),
    }
    const onFraction = (fraction: number) => {
      if (state.phase.name === 'loading') Object.assign(state.phase, { progress: fraction, downloading: true })
    }
    onFraction(0)
    // A model that does not fit is not worth its download.
    const check = async (small: string) => sizeHere(await readOutline(small), options, chosen, modelName)
    folder = await pull(hubId, process.env, output, onFraction, check)
    if (state.phase.name === 'loading') Object.assign(state.phase, { progress: 0, downloading: false })
  }
  const encoder = early ?? startEncoder(folder)
  const model = await loadModel(folder, async () => (await encoder).tokenizer)
  if (template !== null) model.chatTemplate = template(model.tokenizer)
  say(`parley ${version} listens on ${address} and loads ${modelName}`)
  for (const warning of model.warnings) state.log('warn', 'model', { warning })
  const serving = { dtype: engineDtype(options.dtype, model), deterministic: options.deterministic }
  const device = await checkedDevice(chosen, options.device, serving)
  if (device.kind === 'cpu' && device.reason !== null)
    say(`  device   the CPU, for no GPU can be used: ${device.reason}`)
  if (device.kind === 'cuda') {
    for (const gpu of device.gpus) say(`  device   ${gpu.name}, compute capability ${gpu.computeCapability}`)
  }
  const sized = await sizeHere(model, options, device, modelName)
  for (const line of modelLines(model, sized)) say(line)
  const engineOptions = {
    ...sized.options,
    prefix_caching: options.enable_prefix_caching,
    max_queue: options.max_queue,
    max_queue_ms: options.max_queue_seconds * 1000,
  }
  // What listen.ts does at a signal ends the process, but Node would wait for the load first.
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stopLoading)
  const engine = await startEngine(model, engineOptions, (fraction) => {
    if (state.phase.name === 'loading') state.phase.progress = fraction
  })
  const renderThread = new URL('./generation/render_thread.js', import.meta.url)
  const generation = new Generation(
    model,
    engine,
    await encoder,
    state.metrics,
    renderThread,
    options.trust_request_chat_template,
  )
  const { templateProblem, hasTemplate } = generation.prompts
  if (templateProblem !== null) state.log('warn', 'chat_template', { warning: templateProblem })
  // The first rendering takes the longest, for its code is new: now it holds nobody up.
  await state.metrics.render(null)
  if (state.phase.name !== 'loading') {
    // A signal came while the model was loading.
    await engine.close()
    return
  }
  const { info } = engine
  const kernels = kernelsText(device, info.isa, options.deterministic)
  state.metrics.engineReady({ version, ...info })
  state.phase = {
    name: 'ready',
    generation,
    engine,
    created: model.created,
    fingerprint: `parley-${version}-${state.modelName}-${engineFingerprint(kernels, info)}`,
  }
  state.batches?.start()

  const ranks = info.tensor_parallel_size > 1 ? ` in ${info.tensor_parallel_size} ranks` : ''
  const threads = `, ${info.num_threads} ${info.num_threads === 1 ? 'thread' : 'threads'}`
  say(`  engine   ${kernels}${device.kind === 'cpu' ? threads : ''}${ranks}`)
  const meeting = meetingTexts[info.rank_meeting]
  if (meeting !== null) say(`  ranks    ${meeting}`)
  say(`ready after ${(performance.now() / 1000).toFixed(2)} s. Try:`) // since the process began
  say(`  ${example(address, options, hasTemplate)}`)
}

/** A command that works as it stands. */
function example(address: string, { host, api_key }: ServeOptions, chat: boolean): string {
  const url = address
    .replace(/\/\/(0\.0\.0\.0|\[::\])/, '//127.0.0.1')
    .replace('127.0.0.1', host === 'localhost' ? 'localhost' : '127.0.0.1')
  const [path, body] = chat
    ? ['chat/completions', '{"messages":[{"role":"user","content":"Tell me a story."}]}']
    : ['completions', '{"prompt":"Once upon a time","max_tokens":64}']
  const key = api_key === null ? '' : ` -H 'authorization: Bearer <key>'`
  return `curl ${url}/v1/${path} -H 'content-type: application/json'${key} -d '${body}'`
}
