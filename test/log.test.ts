import { expect, test } from 'vitest'
import { createLog, type LogLevel } from '../src/log.js'

function lines(level: LogLevel, readable: boolean): { log: ReturnType<typeof createLog>; written: string[] } {
  const written: string[] = []
  return { log: createLog(level, (line) => written.push(line), readable), written }
}

test('one JSON line an event, from the asked level on, without empty fields', () => {
  const { log, written } = lines('warn', false)
  log('info', 'quiet')
  log('warn', 'loud', { path: '/v1', status: 0, error: undefined, reason: null })
  expect(written).toHaveLength(1)
  expect(JSON.parse(written[0] ?? '')).toEqual({
    time: expect.any(String),
    level: 'warn',
    event: 'loud',
    path: '/v1',
    status: 0,
  })
})

test('no value can begin a line of its own or reach the terminal as a control character', () => {
  for (const readable of [true, false]) {
    const { log, written } = lines('debug', readable)
    log('info', 'request', { path: '/a\n{"level":"error"}\r\u001b[31m' })
    expect(written).toHaveLength(1)
    expect(written[0]).toMatch(/^[\x20-\x7e]+\n$/)
  }
})
