// `parley serve`: listens first, then loads the model, then answers; and goes in good order.

import { existsSync } from 'node:fs'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, resolve } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { type ServeOptions, version } from './config.js'
import type { ServerState } from './http/context.js'
import { RateLimits } from './http/rate_limits.js'
import { createHttpServer } from './http/server.js'
import { newState } from './http/state.js'
import { createLog } from './log.js'
import { Metrics } from './metrics.js'
import { parseHubId } from './models/hub-id.js'

/** Running requests may take this long to finish after a signal to stop. */
const drainMs = 5000

/**
 * Serves until a signal comes.
 * @throws Error with a message for the person at the terminal, before the server is ready
 */
export async function serve(options: ServeOptions): Promise<void> {
  const started = performance.now()
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
  const state = newState(
    {
      modelName,
      apiKey: options.api_key,
      rateLimits: rateLimits(options),
      allowedOrigins: options.allowed_origins,
      metrics: new Metrics(modelName),
      log: createLog(options.log_level),
    },
    options.files_dir === null ? null : { folder: resolve(options.files_dir), limit: options.files_limit },
  )
  const server = createHttpServer(state)
  const address = await listen(server, options)
  stopOnSignals(server, state)

  // Modules and files of the model only now: the port answers meanwhile.
  const { chooseDevice, engineFingerprint, kernelsText, meetingTexts } = await import('./device.js')
  const { checkedDevice } = await import('./gpu-check.js')
  const { engineDtype } = await import('./sizing.js')
  const { modelLines, sizeHere } = await import('./start-size.js')
  const { loadModel } = await import('./models/load.js')
  const { readOutline } = await import('./models/outline.js')
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
  const model = await loadModel(folder)
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
  const { startEngine } = await import('./engine/addon.js')
  const engineOptions = {
    ...sized.options,
    prefix_caching: options.enable_prefix_caching,
    max_queue: options.max_queue,
    max_queue_ms: options.max_queue_seconds * 1000,
  }
  const engine = await startEngine(model, engineOptions, (fraction) => {
    if (state.phase.name === 'loading') state.phase.progress = fraction
  })
  const { Generation } = await import('./generation/generate.js')
  const { Encoder } = await import('./generation/encoder.js')
  const encoder = new Encoder(model.tokenizer, new URL('./generation/encode_thread.js', import.meta.url))
  const renderThread = new URL('./generation/render_thread.js', import.meta.url)
  const generation = new Generation(
    model,
    engine,
    encoder,
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
  say(`ready after ${((performance.now() - started) / 1000).toFixed(2)} s. Try:`)
  say(`  ${example(address, options, hasTemplate)}`)
}

function rateLimits({ rate_limit_requests: requests, rate_limit_tokens: tokens }: ServeOptions): RateLimits | null {
  return requests === null && tokens === null ? null : new RateLimits({ requests, tokens })
}

/** @returns the URL of the server's root */
async function listen(server: Server, { host, port }: ServeOptions): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const reasons: Record<string, string> = {
        EADDRINUSE: `port ${port} of ${host} is in use; choose another with --port, or stop the program that has it`,
        EACCES: `port ${port} of ${host} is not allowed for this user; choose one above 1023 with --port`,
        EADDRNOTAVAIL: `--host ${host} is no address of this machine`,
        ENOTFOUND: `--host ${host} is not known`,
      }
      reject(new Error(reasons[error.code ?? ''] ?? `cannot listen on ${host}, port ${port}: ${error.message}`))
    })
    server.listen(port, host, resolve)
  })
  const bound = server.address() as AddressInfo
  return `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`
}

function stopOnSignals(server: Server, state: ServerState): void {
  let stopping = false
  const stop = async () => {
    if (stopping) process.exit(0)
    stopping = true
    const engine = state.phase.name === 'ready' ? state.phase.engine : null
    state.phase = { name: 'draining', engine }
    state.batches?.stop()
    server.close()
    server.closeIdleConnections()
    state.sockets.drain()
    await idle(state, drainMs)
    // What still runs now is told that the server goes, and gets a moment to hear it.
    await engine?.close()
    await idle(state, 500)
    process.exit(0)
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
}

/** Resolves when every request is answered, or after `ms`. */
async function idle(state: ServerState, ms: number): Promise<void> {
  if (state.inFlight === 0) return
  await new Promise<void>((resolve) => {
    state.onIdle = resolve
    setTimeout(resolve, ms)
  })
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
