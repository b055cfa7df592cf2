// Runs bench.ts without a compile step: Vite, which vitest brings, loads TypeScript.
import { readFileSync } from 'node:fs'
import { runnerImport } from 'vite'

const bench = new URL('./bench.ts', import.meta.url)
const { module } = await runnerImport(bench.pathname, { logLevel: 'error', configFile: false })
try {
  await module.main(process.argv.slice(2))
} catch (error) {
  if (!error.code?.startsWith('ERR_PARSE_ARGS')) throw error
  // The options are told of where bench.ts begins.
  const [comment] = readFileSync(bench, 'utf8').split('\n\n')
  console.error(`${error.message}\n\n${comment.replaceAll(/^\/\/ /gm, '')}`)
  process.exitCode = 1
}
