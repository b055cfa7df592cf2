// One line per event: JSON for machines, a short line for people when stderr is a terminal. Never a prompt or a key.

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'

const rank: Record<LogLevel, number> = { debug: 0, info: 1, warn: 2, error: 3 }

export type LogFields = Record<string, string | number | boolean | null | undefined>

/** @param event what happened, in snake_case; fields that are undefined or null are left out */
export type Log = (level: LogLevel, event: string, fields?: LogFields) => void

/**
 * @param level least important level that is written
 * @param write takes one line with its newline; standard error unless told
 * @param readable lines for people instead of JSON
 */
export function createLog(
  level: LogLevel,
  write: (line: string) => void = (line) => process.stderr.write(line),
  readable: boolean = process.stderr.isTTY === true,
): Log {
  return (eventLevel, event, fields = {}) => {
    if (rank[eventLevel] < rank[level]) return
    const kept = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined && value !== null))
    const time = new Date().toISOString()
    if (readable) {
      // JSON.stringify keeps control characters of a hostile header or path from reaching the terminal.
      const rest = Object.entries(kept).map(
        ([key, value]) => `${key}=${/^[\w./:-]+$/.test(String(value)) ? value : JSON.stringify(value)}`,
      )
      write(`${time.slice(11, 23)} ${eventLevel} ${event} ${rest.join(' ')}\n`)
    } else {
      write(`${JSON.stringify({ time, level: eventLevel, event, ...kept })}\n`)
    }
  }
}
