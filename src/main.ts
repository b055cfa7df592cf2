#!/usr/bin/env node
// The command line. Each command loads what it needs and nothing else, so that --help is there at once.

import { Command, CommanderError } from 'commander'
import { OptionError, optionHelp, readOptions, version } from './config.js'

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
  const byName = Object.fromEntries(Object.entries(flags).map(([name, value]) => [snakeCase(name), String(value)]))
  const options = readOptions(byName, process.env)
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

/** commander's maxModelLen → max_model_len */
function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
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
