// What `parley fit` shows to a person.

import { styleText } from 'node:util'
import { grouped, memoryText } from './config.js'
import { ampleContext, type Fit, type Place } from './fit-plan.js'

/** How to write: characters in a line, and whether colours are shown. */
export interface Screen {
  columns: number
  colours: boolean
}

type Style = Parameters<typeof styleText>[0]

/** Rows that are shown unless all are asked for. */
const shownRows = 20

interface Column {
  title: string
  /** what a row shows, and how */
  cell(fit: Fit): string | [text: string, style: Style]
}

/** A table of checkpoints. `fits`: the largest first; `tokens`: of the requests that the last column counts. */
export function tableText(fits: Fit[], place: Place, tokens: number, all: boolean, screen: Screen): string {
  const style = styler(screen)
  const fitting = fits.filter((fit) => fit.fits)
  const shown = all ? fits : fitting.slice(0, shownRows)
  const [largest] = fitting
  const smallest = fits.at(-1)
  if (largest === undefined && smallest !== undefined && !all) {
    return [
      ...heading(place),
      '',
      `None of the ${fits.length} known checkpoints fits.`,
      `The smallest, ${smallest.id}, needs ${memoryText(smallest.needed_bytes)}.`,
    ].join('\n')
  }
  const lines = [...heading(place), '', ...rows(columnsOf(tokens, place), shown, screen), '']
  const legend: [string, string][] = [
    ['CONTEXT', 'longest request in tokens; 8K/32K: of what the model was made for'],
    [`AT ${tokensText(tokens)}`, `so many requests of ${grouped(tokens)} tokens run at the same time`],
  ]
  if (place.devices !== null) {
    legend.unshift(['GPUS', `the fewest with room for ${grouped(ampleContext)} tokens, in powers of two`])
    legend.push(['WEIGHTS', 'and KV/TOKEN: of each GPU'])
  }
  if (shown.some(({ float16_problem }) => float16_problem !== null))
    legend.push(['*', 'not safe in float16, so in bfloat16; all others are safe in float16'])
  for (const [term, meaning] of legend) lines.push(style('dim', `  ${term.padEnd(9)}${meaning}`))
  lines.push('')
  const hidden = fitting.length - shown.filter((fit) => fit.fits).length
  const larger = fits.length - fitting.length
  if (!all && hidden + larger > 0) {
    const parts = [
      hidden > 0 ? `${hidden} smaller ones fit too` : '',
      larger > 0 ? `${larger} need more memory` : '',
    ].filter((part) => part !== '')
    lines.push(`${parts.join(', ')}; --all shows them.`, '`parley fit MODEL` tells more of one, known or not.')
  }
  if (largest !== undefined) lines.push(`The largest that fits: ${style('bold', largest.id)}`)
  const roomy = fitting.find(({ fits_amply }) => fits_amply)
  if (roomy !== undefined && roomy !== largest)
    lines.push(`The largest with room for ${grouped(ampleContext)} tokens: ${style('bold', roomy.id)}`)
  return lines.join('\n')
}

/** One model. `source`: where its config came from; `instead`: the largest known checkpoint that fits. */
export function modelText(fit: Fit, source: string, place: Place, instead: Fit | undefined, screen: Screen): string {
  const style = styler(screen)
  const each = place.devices === null || fit.tensor_parallel_size === 1 ? '' : ' on each GPU'
  const size = (bytes: number) => memoryText(bytes).padStart(10)
  const lines = [
    `${style('bold', fit.id)}: ${fit.architecture}, ${parametersText(fit.num_parameters)} parameters, context ${grouped(fit.max_position)}`,
    style('dim', `from ${source}`),
    '',
    `${size(fit.weight_bytes)}  weights in ${fit.dtype}${each}; ${fit.float16_problem === null ? 'float16 is safe' : `float16 is not safe: ${fit.float16_problem}`}`,
    `${size(fit.workspace_bytes)}  workspace${each}`,
    `${size(fit.process_bytes)}  ${place.devices === null ? `Node and the tokenizer, ${memoryText(fit.long_text_bytes)} more for long texts` : 'context and libraries'}${each}`,
    `${size(fit.kv_bytes_per_token)}  KV pages for each token${each}`,
    '',
    ...heading(place),
  ]
  if (!fit.fits) {
    lines.push(`It ${style('red', 'does not fit')}: it needs ${memoryText(fit.needed_bytes)}${each} at least.`)
    if (instead !== undefined)
      lines.push(`The largest known checkpoint that fits: ${instead.id} (${parametersText(instead.num_parameters)}).`)
    return lines.join('\n')
  }
  const split =
    fit.tensor_parallel_size === 1
      ? ''
      : ` split between ${fit.tensor_parallel_size} ${place.devices === null ? 'ranks' : 'GPUs'}`
  lines.push(
    `It ${style('green', 'fits')}${split}: ${memoryText(fit.kv_cache_bytes)} of KV pages${each} hold ${grouped(fit.kv_cache_tokens)} tokens.`,
    '',
    style('bold', `${'TOKENS'.padStart(10)}  REQUESTS OF SO MANY TOKENS AT THE SAME TIME`),
    ...fit.loads.map(({ tokens, at_once }) => `${grouped(tokens).padStart(10)}  ${at_once}`),
  )
  if (fit.kv_cache_tokens < fit.max_position) {
    const whole = memoryText(fit.max_position * fit.kv_bytes_per_token)
    lines.push(`${grouped(fit.max_position).padStart(10)}  – the whole context takes ${whole} of KV pages${each}`)
  }
  return lines.join('\n')
}

/** What is planned for, and what of it this version can do. */
function heading({ memory, bound, devices, gpus }: Place): string[] {
  if (devices !== null) {
    const of = devices === 1 ? `a GPU of ${memoryText(memory)}` : `${devices} GPUs of ${memoryText(memory)} each`
    return [`A plan for ${of}.`]
  }
  const lines = [
    bound === null
      ? `With ${memoryText(memory)} of memory, on the CPU.`
      : `${memoryText(memory)} free ${bound}, on the CPU.`,
  ]
  const [gpu] = gpus
  if (gpu !== undefined) {
    const of = gpus.length === 1 ? gpu.name : `${gpus.length} GPUs (${gpu.name})`
    lines.push(
      `${of} found, not used: \`parley serve --device cuda\` says why; \`--devices ${gpus.length}\` plans for ${gpus.length === 1 ? 'it' : 'them'}.`,
    )
  }
  return lines
}

function columnsOf(tokens: number, place: Place): Column[] {
  const inAll = (fit: Fit, text: string): string | [string, Style] => (fit.fits ? text : [text, 'dim'])
  return [
    { title: 'MODEL', cell: (fit) => inAll(fit, fit.float16_problem === null ? fit.id : `${fit.id} *`) },
    { title: 'PARAMS', cell: (fit) => inAll(fit, parametersText(fit.num_parameters)) },
    ...(place.devices === null
      ? []
      : [{ title: 'GPUS', cell: (fit: Fit) => inAll(fit, fit.fits ? String(fit.tensor_parallel_size) : '–') }]),
    { title: 'WEIGHTS', cell: (fit) => inAll(fit, memoryText(fit.weight_bytes)) },
    { title: 'KV/TOKEN', cell: (fit) => inAll(fit, memoryText(fit.kv_bytes_per_token)) },
    {
      title: 'CONTEXT',
      cell: (fit) => {
        if (!fit.fits) return ['–', 'dim']
        const text = tokensText(fit.max_model_len)
        return fit.max_model_len < fit.max_position ? [`${text}/${tokensText(fit.max_position)}`, 'yellow'] : text
      },
    },
    { title: `AT ${tokensText(tokens)}`, cell: (fit) => inAll(fit, loadAt(fit, tokens)) },
  ]
}

/** Requests of `tokens` tokens, or of the whole context where that is shorter, at the same time. */
function loadAt({ loads, max_position }: Fit, tokens: number): string {
  const load = loads.find((one) => one.tokens === Math.min(tokens, max_position))
  return load === undefined ? '–' : String(load.at_once)
}

/** Rows of text under their titles: the first column is left-aligned and gives way on a narrow screen. */
function rows(columns: Column[], fits: Fit[], screen: Screen): string[] {
  const style = styler(screen)
  const cells = fits.map((fit) => columns.map(({ cell }) => [cell(fit)].flat() as [string, Style?]))
  const widths = columns.map(({ title }, i) => Math.max(title.length, ...cells.map((row) => row[i]?.[0].length ?? 0)))
  const others = widths.slice(1).reduce((sum, width) => sum + width + 2, 2)
  const first = Math.max(16, Math.min(widths[0] ?? 0, screen.columns - others))
  const line = (texts: [string, Style?][]) =>
    texts
      .map(([text, how], i) => {
        const padded = i === 0 ? shortened(text, first).padEnd(first) : text.padStart(widths[i] ?? 0)
        return how === undefined ? padded : style(how, padded)
      })
      .join('  ')
      .trimEnd()
  return [`  ${style('bold', line(columns.map(({ title }) => [title])))}`, ...cells.map((row) => `  ${line(row)}`)]
}

/** `deepseek-ai/DeepSeek-R1-Distill-Llama-70B` → `…/DeepSeek-R1-Distill-Llama-70B`: the name says more than who made it. */
function shortened(id: string, width: number): string {
  if (id.length <= width) return id
  const name = `…${id.slice(id.indexOf('/'))}`
  return name.length <= width ? name : `${name.slice(0, width - 1)}…`
}

/** 8030261248 → 8.03 B */
function parametersText(count: number): string {
  const [value, unit] = count >= 1e9 ? [count / 1e9, 'B'] : [count / 1e6, 'M']
  return `${value >= 99.95 ? Math.round(value) : value.toFixed(value < 9.995 ? 2 : 1)} ${unit}`
}

/** 131072 → 128K, 45312 → 44K, 512 → 512 */
function tokensText(tokens: number): string {
  return tokens < 1024 ? String(tokens) : `${Math.floor(tokens / 1024)}K`
}

function styler({ colours }: Screen): (style: Style, text: string) => string {
  return (style, text) => (colours ? styleText(style, text) : text)
}
