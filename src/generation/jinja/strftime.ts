// Python's datetime.now().strftime(), in its C locale.

import { TemplateError } from './errors.js'

const days = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday']
const months = [
  ...['January', 'February', 'March', 'April', 'May', 'June'],
  ...['July', 'August', 'September', 'October', 'November', 'December'],
]

/** @throws TemplateError for a directive that is not supported */
export function strftime(date: Date, format: string): string {
  return format.replace(/%(-?)(.?)/gsu, (whole, dash: string, directive: string) => {
    const text = one(date, directive)
    if (text === undefined) throw new TemplateError(`strftime_now: '${whole}' is not supported`)
    return dash === '' ? text : text.replace(/^[0 ]+(?=.)/, '')
  })
}

function one(date: Date, directive: string): string | undefined {
  const pad = (value: number, width = 2, fill = '0') => String(value).padStart(width, fill)
  const hour12 = date.getHours() % 12 || 12
  const at = (format: string) => strftime(date, format)
  switch (directive) {
    case 'a':
      return days[date.getDay()]?.slice(0, 3)
    case 'A':
      return days[date.getDay()]
    case 'b':
    case 'h':
      return months[date.getMonth()]?.slice(0, 3)
    case 'B':
      return months[date.getMonth()]
    case 'c':
      return at('%a %b %e %H:%M:%S %Y')
    case 'd':
      return pad(date.getDate())
    case 'D':
    case 'x':
      return at('%m/%d/%y')
    case 'e':
      return pad(date.getDate(), 2, ' ')
    case 'F':
      return at('%Y-%m-%d')
    case 'H':
      return pad(date.getHours())
    case 'I':
      return pad(hour12)
    case 'j':
      return pad(1 + Math.round((midnight(date) - midnight(new Date(date.getFullYear(), 0, 1))) / 86400000), 3)
    case 'm':
      return pad(date.getMonth() + 1)
    case 'M':
      return pad(date.getMinutes())
    case 'n':
      return '\n'
    case 'p':
      return date.getHours() < 12 ? 'AM' : 'PM'
    case 'R':
      return at('%H:%M')
    case 'S':
      return pad(date.getSeconds())
    case 't':
      return '\t'
    case 'T':
    case 'X':
      return at('%H:%M:%S')
    case 'u':
      return String(date.getDay() || 7)
    case 'w':
      return String(date.getDay())
    case 'y':
      return pad(date.getFullYear() % 100)
    case 'Y':
      return String(date.getFullYear())
    // The time is one without a zone.
    case 'z':
    case 'Z':
      return ''
    case '%':
      return '%'
    default:
      return undefined
  }
}

function midnight(date: Date): number {
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate())
}
