import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
// @ts-expect-error plain JavaScript: it also runs before TypeScript is installed
import { generateContract } from '../../src/engine/generate-contract.mjs'

test('contract.ts is what native/contract.def generates (npm run contract)', () => {
  const read = (path: string) => readFileSync(new URL(path, import.meta.url), 'utf8')
  expect(generateContract(read('../../native/contract.def'))).toBe(read('../../src/engine/contract.ts'))
})
