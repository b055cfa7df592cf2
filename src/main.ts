#!/usr/bin/env node
// The command line. Each command loads what it needs and nothing else, so that --help is there at once.

import { Command, CommanderError } from 'commander'
import { fitOptions, OptionError, optionHelp, readOptions, readTable, version } from './config.js'

const program = new Command('parley')
  .description('Self-hosted inference server for open language models with the OpenAI API.')
  .version(version)
  .exitOverride()

const serveCommand = program
  .command('serve')
  .description('Serve a model. Every option can also be set as a variable: --max-model-len is PARLEY_MAX_MODEL_LEN.')
  .exitOverride()
for (const { flags, help, no } of optionHelp()) {
  serveCommand.option(flags, help)
  if (no) serveCommand.option(no, 'the same with false')
}
serveCommand.action(async (flags: Record<string, string | boolean>) => {
  const options = readOptions(byOptionName(flags), process.env)
  const { serve } = await import('./serve.js')
  await serve(options)
})

program
  .command('pull')
  .description(
    "Download a model into the cache of Hugging Face's tools and print its folder. HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.",
  )
  .argument('<model>', 'org/name or org/name@revision')
  .exitOverride()
  .action(async (model: string) => {
    const { pullCommand } = await import('./pull.js')
    await pullCommand(model)
  })

const fit = program
  .command('fit')
  .description(
    "Show which models fit into this machine's memory, or into that of --memory, and what of one model fits: weights, context, requests at the same time. Only config.json is read. Exit code 1: the model does not fit.",
  )
  .argument('[model]', 'a folder, a config.json, org/name of a hub or a known name; left out: the known checkpoints')
  .exitOverride()
for (const { flags, help } of optionHelp(fitOptions)) fit.option(flags, help)
fit.option('--all', 'also the smaller known checkpoints and those that do not fit').option('--json', 'for programs')
fit.action(async (model: string | undefined, { all, json, ...flags }: Record<string, string | boolean>) => {
  const options = readTable(fitOptions, byOptionName(flags), process.env)
  const { fitCommand } = await import('./fit.js')
  await fitCommand(model, options, { all: all === true, json: json === true })
})

/** commander's { maxModelLen: 512 } → { max_model_len: '512' } */
function byOptionName(flags: Record<string, string | boolean>): Record<string, string> {
  const snakeCase = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return Object.fromEntries(Object.entries(flags).map(([name, value]) => [snakeCase(name), String(value)]))
}

// Who reads what it prints may go before it does (`parley serve | head`): what nobody reads any more is no error.
for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
  })
}

try {
  await program.parseAsync()
} catch (error) {
  if (error instanceof CommanderError) {
    // It has said what is wrong already. Wrong usage is 2; asking for help is none.
    process.exitCode = error.exitCode === 0 || error.code === 'commander.help' ? 0 : 2
  } else {
    process.stderr.write(`parley: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = error instanceof OptionError ? 2 : 1
  }
  process.exit()
}
