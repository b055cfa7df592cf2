// The document as a page to read: plain HTML, nothing from elsewhere, no script.

import type { DocumentOperation, JsonSchema, OpenApiDocument } from './document.js'

export function makePage({ info, paths }: OpenApiDocument): string {
  const all = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method: method.toUpperCase(), operation })),
  )
  const links = all.map(
    ({ path, method, operation }) =>
      `<li><a href="#${anchor(method, path)}"><b>${method}</b> ${html(path)}</a> <span>${html(operation.summary)}</span></li>`,
  )
  const sections = all.map(({ path, method, operation }) => section(path, method, operation))
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${html(info.title)} ${html(info.version)}</title>
<style>${style}</style>
</head>
<body>
<h1>${html(info.title)} <small>${html(info.version)}</small></h1>
<p>${html(info.description)} As OpenAPI 3.1: <a href="/openapi.json">/openapi.json</a>.</p>
<ul class="index">${links.join('\n')}</ul>
${sections.join('\n')}
</body>
</html>
`
}

function section(path: string, method: string, operation: DocumentOperation): string {
  const { summary, description, parameters = [], requestBody, responses } = operation
  const body = requestBody?.content['application/json']?.schema
  const answers = Object.entries(responses[200]?.content ?? {})
  return `<section id="${anchor(method, path)}">
<h2><b>${method}</b> ${html(path)}</h2>
<p>${html(summary)}${description === undefined ? '' : ` ${html(description)}`}</p>
${
  parameters.length === 0
    ? ''
    : table(
        'Parameters',
        parameters.map(({ name, schema, required, description }) => row(name, schema, required, description)),
      )
}
${body ? fields('Body', body) : ''}
${answers.map(([type, { schema }]) => fields(type === 'application/json' ? 'Answer' : `Answer, ${type}`, schema)).join('\n')}
</section>`
}

function fields(title: string, schema: JsonSchema): string {
  if (!schema.properties) return Object.keys(schema).length === 0 ? `<h3>${html(title)}</h3>` : ''
  return table(title, rows(schema, ''))
}

/** A schema's properties, the required ones first, those of objects in it behind their names. */
function rows(schema: JsonSchema, before: string): string[] {
  const isRequired = (name: string) => schema.required?.includes(name) === true
  const properties = Object.entries(schema.properties ?? {})
  properties.sort(([a], [b]) => Number(isRequired(b)) - Number(isRequired(a)))
  return properties.flatMap(([name, property]) => {
    const required = isRequired(name)
    const inner = [property, ...(property.anyOf ?? [])]
      .map((option) => option.items ?? option)
      .find((option) => option.properties)
    const own = row(before + name, property, required, property.description)
    return inner ? [own, ...rows(inner, `${before}${name}.`)] : [own]
  })
}

function table(title: string, rows: string[]): string {
  return `<h3>${html(title)}</h3>\n<table>${rows.join('\n')}</table>`
}

function row(name: string, schema: JsonSchema, required: boolean, description = ''): string {
  return `<tr><td><code>${html(name)}</code>${required ? '' : '<i>?</i>'}</td><td>${html(typeOf(schema))}</td><td>${html(description)}</td></tr>`
}

/** A schema in a few words: integer 0 to 20, array of string, "a" or "b". */
function typeOf(schema: JsonSchema): string {
  if (schema.anyOf) return [...new Set(schema.anyOf.map(typeOf))].join(' or ')
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(' or ')
  const { type = 'anything', minimum, maximum, items, additionalProperties } = schema
  if (type === 'array') return `array of ${items ? typeOf(items) : 'nothing'}`
  if (type === 'object' && typeof additionalProperties === 'object') return `object of ${typeOf(additionalProperties)}`
  const name = Array.isArray(type) ? type.join(' or ') : type
  const isBounded = (bound: number | undefined): bound is number => bound !== undefined && Math.abs(bound) < 2 ** 53 - 1
  if (isBounded(minimum) && isBounded(maximum)) return `${name} ${minimum} to ${maximum}`
  if (isBounded(minimum)) return `${name} from ${minimum}`
  return isBounded(maximum) ? `${name} to ${maximum}` : name
}

function anchor(method: string, path: string): string {
  return `${method}${path}`.toLowerCase().replace(/[^a-z0-9]+/g, '-')
}

function html(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`)
}

const style = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 15%, transparent); --link: #0b62c4 }
@media (prefers-color-scheme: dark) { :root { --link: #7db7ff } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 small { font-weight: normal; opacity: .6 }
h2 { font-size: 1.15rem; margin: 3rem 0 .3rem; border-top: 1px solid var(--line); padding-top: 1rem; overflow-wrap: anywhere }
h2 b, .index b { color: var(--link) }
h3 { font-size: .85rem; text-transform: uppercase; letter-spacing: .06em; opacity: .7; margin: 1.2rem 0 .3rem }
a { color: inherit; text-decoration-color: var(--line) }
.index { list-style: none; padding: 0 }
.index span { opacity: .65 }
table { border-collapse: collapse; width: 100% }
td { border-bottom: 1px solid var(--line); padding: .25rem .8rem .25rem 0; vertical-align: top; overflow-wrap: anywhere }
td:first-child { width: 30% }
td:nth-child(2) { width: 30%; opacity: .75 }
code { font-size: .95em }
i { opacity: .5; font-style: normal }
`
