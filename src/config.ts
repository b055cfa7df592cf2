// ONE table of options: flags, PARLEY_* variables, --help and the README's table all come from it.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** Parley's version, from package.json. */
export const version: string = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version

/** An option's value is not what the table allows. The message names the option, what was expected and what came. */
export class OptionError extends Error {}

/** Memory as the command line gives it: a number of bytes, or a part of the memory that is free. */
export type MemorySize = { bytes: number } | { fraction: number }

interface Kind<T> {
  placeholder: string
  expected: string
  /** undefined: not a value of this kind */
  parse(text: string): T | undefined
}

interface Row<T, D> {
  kind: Kind<T>
  default: D
  /** how the default reads in --help and in the README, where the value says too little */
  defaultText?: string
  doc: string
}

const text: Kind<string> = {
  placeholder: '<text>',
  expected: 'a text that is not empty',
  parse: (value) => (value.trim() === '' ? undefined : value),
}

function integer(min: number, max: number): Kind<number> {
  return {
    placeholder: '<number>',
    expected: `an integer from ${min} to ${max}`,
    parse: (value) => (/^\d{1,15}$/.test(value) && +value >= min && +value <= max ? +value : undefined),
  }
}

function choice<const T extends string>(...values: T[]): Kind<T> {
  return {
    placeholder: `<${values.join('|')}>`,
    expected: `one of ${values.join(', ')}`,
    parse: (value) => values.find((v) => v === value),
  }
}

const part: Kind<number> = {
  placeholder: '<number>',
  expected: 'a number above 0 and up to 1',
  parse: (value) => (/^\d?(\.\d{1,9})?$/.test(value) && +value > 0 && +value <= 1 ? +value : undefined),
}

const onOff: Kind<boolean> = {
  placeholder: '[true|false]',
  expected: 'true or false',
  parse: (value) => ({ true: true, '1': true, false: false, '0': false })[value],
}

const origins: Kind<string[]> = {
  placeholder: '<list>',
  expected:
    "origins such as https://example.org separated by commas, 'localhost' for every page of this machine, or '*' for all",
  parse: (value) => {
    const list = value.split(',').map((origin) => origin.trim().replace(/\/$/, ''))
    const valid = list.every(
      (origin) => origin === '*' || origin === 'localhost' || /^[a-z][\w+.-]*:\/\/[^/\s]+$/i.test(origin),
    )
    return valid ? list : undefined
  },
}

const unitBytes: Record<string, number> = {
  '': 1,
  K: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  KI: 2 ** 10,
  MI: 2 ** 20,
  GI: 2 ** 30,
  TI: 2 ** 40,
}

const memory: Kind<MemorySize> = {
  placeholder: '<size>',
  expected: 'bytes such as 536870912, 512MiB or 2GB, or a part of the free memory such as 0.5',
  parse: (value) => {
    const match = /^(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]I?)?B?$/i.exec(value.trim())
    if (!match) return undefined
    const number = Number(match[1])
    if (match[2] === undefined && number > 0 && number <= 1) return { fraction: number }
    const bytes = number * (unitBytes[(match[2] ?? '').toUpperCase()] ?? 1)
    if (match[2] === undefined && !Number.isInteger(bytes)) return undefined
    return bytes >= 1 && bytes <= 2 ** 46 ? { bytes: Math.floor(bytes) } : undefined
  },
}

const bytes: Kind<number> = {
  placeholder: '<size>',
  expected: 'bytes such as 536870912, 512MiB or 2GB',
  parse: (value) => {
    const size = memory.parse(value)
    return size !== undefined && 'bytes' in size ? size.bytes : undefined
  },
}

function row<T, D>(value: Row<T, D>): Row<T, D> {
  return value
}

/** Options of `parley serve`. The key `max_model_len` is the flag --max-model-len and the variable PARLEY_MAX_MODEL_LEN. */
export const serveOptions = {
  model: row({
    kind: text,
    default: fileURLToPath(new URL('../models/tales', import.meta.url)),
    defaultText: 'the bundled models/tales',
    doc: 'folder of the model in the layout of Hugging Face, or org/name or org/name@revision of a hub, which is downloaded',
  }),
  served_model_name: row({
    kind: text,
    default: null,
    defaultText: "the folder's name, or what --model says of a hub",
    doc: 'id of the model in the API',
  }),
  chat_template: row({
    kind: text,
    default: null,
    defaultText: "the model's own",
    doc: 'how chats become text: a file with a template in Jinja, or builtin:plain or builtin:chatml for a model that has none',
  }),
  trust_request_chat_template: row({
    kind: onOff,
    default: false,
    doc: "requests may bring a chat template of their own in chat_template, whose special tokens count as the model's own template's do",
  }),
  host: row({
    kind: text,
    default: '127.0.0.1',
    doc: 'address to listen on; 0.0.0.0 is every network of this machine',
  }),
  port: row({ kind: integer(0, 65535), default: 8000, doc: 'port to listen on; 0 is any free one' }),
  dtype: row({
    kind: choice('auto', 'float16', 'bfloat16', 'float32'),
    default: 'auto' as const,
    doc: "type of weights and KV pages; auto is the checkpoint's 16-bit type, float16 for a float32 checkpoint, bfloat16 where float16 is unsafe (T5)",
  }),
  max_model_len: row({
    kind: integer(1, 16777216),
    default: null,
    defaultText: "the model's context",
    doc: 'longest request in tokens, prompt and completion together',
  }),
  max_num_seqs: row({
    kind: integer(1, 4096),
    default: 64,
    doc: 'requests that run at the same time; more wait in a queue',
  }),
  max_queue: row({
    kind: integer(0, 1048576),
    default: 1024,
    doc: 'completions that wait, above which new requests are refused with status 429',
  }),
  max_queue_seconds: row({
    kind: integer(0, 86400),
    default: 0,
    defaultText: '0: for ever',
    doc: 'time that a request may wait for its turn, after which it is refused with status 503',
  }),
  max_num_batched_tokens: row({ kind: integer(1, 1048576), default: 512, doc: 'tokens computed in one step, at most' }),
  device: row({
    kind: choice('auto', 'cuda', 'cpu'),
    default: 'auto' as const,
    doc: 'what computes: cuda is NVIDIA GPUs, one for each rank, auto is these or, where none can be used, the CPU',
  }),
  deterministic: row({
    kind: onOff,
    default: false,
    doc: "on a GPU: an answer's bits never depend on who else is served, as on the CPU; without it faster products are allowed (cuBLASLt)",
  }),
  gpu_memory_utilization: row({
    kind: part,
    default: 0.9,
    doc: "part of a GPU's memory that this server may take, its CUDA context included",
  }),
  kv_cache_memory: row({
    kind: memory,
    default: null,
    defaultText: '0.8; on a GPU 1',
    doc: 'memory for KV pages: bytes (512MiB, 2GB) or a part of what the weights and the workspace leave free (0.5), of which only as much is taken as max-num-seqs full requests can use',
  }),
  enable_prefix_caching: row({
    kind: onOff,
    default: true,
    doc: 'keep the KV pages of ended requests as long as nobody needs their memory, so that later requests with the same beginning are spared it',
  }),
  threads: row({
    kind: integer(1, 1024),
    default: null,
    defaultText: 'cores available',
    doc: 'threads that compute; in a container a limit of its CPU time counts, rounded up to whole cores',
  }),
  tensor_parallel_size: row({
    kind: integer(1, 64),
    default: 1,
    doc: 'ranks that the model is split between: each has a part of every layer, of the KV pages and of the threads; at most as many as the model has heads',
  }),
  isa: row({
    kind: choice('auto', 'baseline', 'neon', 'avx2', 'avx512', 'amx'),
    default: 'auto' as const,
    doc: 'instruction set of the CPU kernels; auto is the best that this machine has for the dtype',
  }),
  api_key: row({
    kind: text,
    default: null,
    defaultText: 'none: open to all who reach the port',
    doc: 'key that clients must send as `Authorization: Bearer <key>`; the variable keeps it out of the list of processes',
  }),
  rate_limit_requests: row({
    kind: integer(1, 1_000_000_000),
    default: null,
    defaultText: 'none',
    doc: 'requests to the model that may begin in a minute, of all who have the key together',
  }),
  rate_limit_tokens: row({
    kind: integer(1, 1_000_000_000),
    default: null,
    defaultText: 'none',
    doc: 'tokens of prompts and answers that may be used in a minute, by all who have the key together',
  }),
  allowed_origins: row({
    kind: origins,
    default: ['localhost'],
    defaultText: 'localhost',
    doc: 'web pages that may ask from a browser',
  }),
  files_dir: row({
    kind: text,
    default: null,
    defaultText: 'none: no files, no batches',
    doc: 'folder for /v1/files and /v1/batches, which go on there after a restart',
  }),
  files_limit: row({
    kind: bytes,
    default: 2 ** 30,
    defaultText: '1GiB',
    doc: 'bytes of all files together, at most',
  }),
  log_level: row({
    kind: choice('debug', 'info', 'warn', 'error'),
    default: 'info' as const,
    doc: 'least important event that is logged',
  }),
}

const {
  device,
  dtype,
  max_model_len,
  max_num_seqs,
  max_num_batched_tokens,
  gpu_memory_utilization,
  kv_cache_memory,
  threads,
  tensor_parallel_size,
  isa,
} = serveOptions

/** Options of `parley fit`: what memory there is, and of `parley serve` those that decide how it is used. */
export const fitOptions = {
  memory: row({
    kind: bytes,
    default: null,
    defaultText: 'what is free on this machine',
    doc: 'memory to plan for, of each device if there are several',
  }),
  devices: row({
    kind: integer(1, 64),
    default: null,
    defaultText: 'those of this machine, or the CPU',
    doc: 'GPUs to plan for',
  }),
  device,
  dtype,
  max_model_len,
  max_num_seqs,
  max_num_batched_tokens,
  gpu_memory_utilization,
  kv_cache_memory,
  threads,
  tensor_parallel_size,
  isa,
}

type Table = Record<string, Row<unknown, unknown>>
type Values<T> = { [K in keyof T]: T[K] extends Row<infer V, infer D> ? (D extends null ? V | null : V) : never }
/** The values of all options of `parley serve`. */
export type ServeOptions = Values<typeof serveOptions>
export type FitOptions = Values<typeof fitOptions>

/** `max_model_len` → `--max-model-len` */
export function flagOf(name: string): string {
  return `--${name.replaceAll('_', '-')}`
}

/** `max_model_len` → `PARLEY_MAX_MODEL_LEN` */
export function variableOf(name: string): string {
  return `PARLEY_${name.toUpperCase()}`
}

/** How the default of an option reads. */
function defaultOf(row: Row<unknown, unknown>): string {
  return row.defaultText ?? String(row.default)
}

/**
 * One entry per option, for the command line's parser: flags such as `--port <number>`, a line of help, and for an option that is true or
 * false the flag that says no, such as `--no-enable-prefix-caching`.
 */
export function optionHelp(table: Table = serveOptions): { flags: string; help: string; no?: string }[] {
  return Object.entries(table).map(([name, row]) => ({
    flags: `${flagOf(name)} ${row.kind.placeholder}`,
    ...(row.kind === onOff && { no: flagOf(`no_${name}`) }),
    help: `${row.doc} (${row.kind.placeholder.includes('|') || row.kind === text ? '' : `${row.kind.expected}; `}default: ${defaultOf(row)})`,
  }))
}

/** The options as a Markdown table, as the README shows it. */
export function optionsMarkdown(): string {
  const cell = (value: string) => value.replaceAll('|', '\\|')
  const lines = Object.entries(serveOptions).map(
    ([name, row]) =>
      `| \`${flagOf(name)}\` | \`${variableOf(name)}\` | ${cell(defaultOf(row))} | ${cell(row.doc)}${row.kind === text ? '' : ` (${cell(row.kind.expected)})`} |`,
  )
  return ['| Flag | Variable | Default | Meaning |', '| --- | --- | --- | --- |', ...lines].join('\n')
}

/** The values of the options of `parley serve`; see readTable. */
export function readOptions(flags: Given, environment: Given): ServeOptions {
  return readTable(serveOptions, flags, environment)
}

type Given = Readonly<Record<string, string | undefined>>

/**
 * The values of a table's options: a flag wins over its variable, a variable over the default.
 * @param flags values by option name as they stand on the command line
 * @throws OptionError naming the first option that is wrong
 */
export function readTable<T extends Table>(table: T, flags: Given, environment: Given): Values<T> {
  const values: Record<string, unknown> = {}
  for (const [name, row] of Object.entries(table)) {
    const fromFlag = flags[name]
    // An empty variable counts as unset, as deployment tools leave it.
    const given = fromFlag ?? (environment[variableOf(name)] || undefined)
    if (given === undefined) {
      values[name] = row.default
      continue
    }
    const value = row.kind.parse(given)
    if (value === undefined) {
      const source = fromFlag !== undefined ? flagOf(name) : variableOf(name)
      throw new OptionError(
        `${source}: expected ${row.kind.expected}, got ${name === 'api_key' ? 'an empty text' : JSON.stringify(given)}`,
      )
    }
    values[name] = value
  }
  return values as Values<T>
}

/** Bytes with three digits and a binary unit: 13747621888 → 12.8 GiB. */
export function memoryText(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let value = bytes
  let unit = 0
  while (value >= 1023.5 && unit < units.length - 1) {
    value /= 1024
    unit++
  }
  return `${unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(value < 9.995 ? 2 : 1)} ${units[unit]}`
}

/** 131072 → 131,072, and 20 ms sooner at start than with ICU's toLocaleString. */
export function grouped(count: number): string {
  return String(count).replace(/\B(?=(?:\d{3})+$)/g, ',')
}

/**
 * Bytes for KV pages.
 * @param size what the option says
 * @param free bytes of memory that are free now
 * @param useful bytes that the largest possible load can use: a fraction never takes more
 */
export function kvCacheBytes(size: MemorySize, free: number, useful: number): number {
  return 'bytes' in size ? size.bytes : Math.max(1, Math.min(Math.floor(size.fraction * free), useful))
}
