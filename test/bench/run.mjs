// Runs bench.ts without a compile step: Vite, which vitest brings, loads TypeScript.
import { runnerImport } from 'vite'

const { module } = await runnerImport(new URL('./bench.ts', import.meta.url).pathname, {
  logLevel: 'error',
  configFile: false,
})
await module.main(process.argv.slice(2))
