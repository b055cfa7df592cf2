// The thread that renders what is too much for the server's own (see renderer.ts).

import { parentPort, workerData } from 'node:worker_threads'
import { BudgetError, JinjaTemplate, TemplateError } from './jinja/jinja.js'
import type { RenderJob, RenderReply } from './renderer.js'

const template = new JinjaTemplate(workerData as string)

parentPort?.on('message', ({ id, variables, limits }: RenderJob) => {
  parentPort?.postMessage({ id, ...outcome(() => template.render(variables, limits)) } satisfies RenderReply)
})

function outcome(render: () => string) {
  try {
    return { text: render() }
  } catch (error) {
    if (!(error instanceof TemplateError)) throw error
    return { error: error.message, stopped: error instanceof BudgetError }
  }
}
