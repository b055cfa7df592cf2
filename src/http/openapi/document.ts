// The OpenAPI 3.1 document, made of the schemas that validate requests.

import { z } from 'zod'
import { version } from '../../config.js'
import { unsupportedNames } from '../unsupported.js'
import { anthropicErrorAnswer, errorAnswer } from './answers.js'
import { meanings } from './meanings.js'
import { type Operation, operations } from './operations.js'

/** JSON Schema, draft 2020-12, as far as zod writes it. */
export interface JsonSchema {
  type?: string | string[]
  properties?: Record<string, JsonSchema>
  required?: string[]
  items?: JsonSchema
  prefixItems?: JsonSchema[]
  anyOf?: JsonSchema[]
  enum?: unknown[]
  const?: unknown
  additionalProperties?: JsonSchema | boolean
  description?: string
  minimum?: number
  maximum?: number
  minItems?: number
  maxItems?: number
  minLength?: number
  maxLength?: number
}

export interface DocumentOperation {
  summary: string
  description?: string
  tags: string[]
  parameters?: { name: string; in: 'path' | 'query'; required: boolean; description?: string; schema: JsonSchema }[]
  requestBody?: { required: true; content: Content }
  responses: Record<string, { description: string; content?: Content }>
  security?: object[]
}

type Content = Record<string, { schema: JsonSchema }>

export interface OpenApiDocument {
  openapi: '3.1.0'
  info: { title: string; version: string; description: string; license: { name: string; identifier: string } }
  security: object[]
  components: object
  paths: Record<string, Record<string, DocumentOperation>>
}

/** @param routes of routes.ts */
export function makeDocument(routes: readonly { method: string; path: string; open?: true }[]): OpenApiDocument {
  const paths: OpenApiDocument['paths'] = {}
  for (const { method, path, open } of routes) {
    const operation = operations[`${method} ${path}`]
    if (!operation) throw new Error(`no operation for ${method} ${path}`)
    const shown = path.replace(/:(\w+)(?:\{.*\})?/g, '{$1}')
    paths[shown] ??= {}
    paths[shown][method.toLowerCase()] = describe(shown, operation, open === true)
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Parley',
      version,
      description:
        'The OpenAI API over open language models. A field that is null counts as left out; fields that nobody knows are ignored.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    security: [{ key: [] }],
    components: {
      securitySchemes: {
        key: { type: 'http', scheme: 'bearer', description: 'Only where the server was started with --api-key.' },
      },
    },
    paths,
  }
}

function describe(path: string, operation: Operation, open: boolean): DocumentOperation {
  const { summary, body, answer, chunk, query = {}, anthropic } = operation
  const refused = unsupportedNames(path)
  const inPath = [...path.matchAll(/\{(\w+)\}/g)].map(([, name = '']) => ({
    name,
    in: 'path' as const,
    required: true,
    schema: { type: 'string' },
  }))
  const inQuery = Object.entries(query).map(([name, description]) => ({
    name,
    in: 'query' as const,
    required: false,
    description,
    schema: { type: 'string' },
  }))
  const good: Content =
    typeof answer === 'string' ? { [answer]: { schema: {} } } : { 'application/json': { schema: output(answer) } }
  const answered =
    answer === 'websocket'
      ? { 101: { description: 'The connection is a WebSocket now.' } }
      : { 200: { description: 'The answer.', content: good } }
  if (chunk !== undefined) good['text/event-stream'] = { schema: output(chunk) }
  const wrong = output(anthropic ? anthropicErrorAnswer : errorAnswer)
  return {
    summary,
    ...(refused.length === 0 ? {} : { description: `Refused by name, because not built: ${refused.join(', ')}.` }),
    tags: [path.split('/').find((part) => part !== '' && part !== 'v1') ?? ''],
    ...(inPath.length + inQuery.length === 0 ? {} : { parameters: [...inPath, ...inQuery] }),
    ...(body ? { requestBody: { required: true, content: { 'application/json': { schema: input(body) } } } } : {}),
    responses: {
      ...answered,
      default: { description: 'An error.', content: { 'application/json': { schema: wrong } } },
    },
    ...(open ? { security: [] } : {}),
  }
}

function input(body: z.ZodObject): JsonSchema {
  const schema = bare(z.toJSONSchema(body, { io: 'input' }))
  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const description = meanings[name]
    if (description !== undefined) property.description ??= description
  }
  return schema
}

/** More keys may come with a newer server. */
function output(answer: z.ZodType): JsonSchema {
  return bare(
    z.toJSONSchema(answer, {
      io: 'output',
      override: ({ jsonSchema }) => {
        if (jsonSchema.additionalProperties === false) delete jsonSchema.additionalProperties
        // JSON Schema has no empty prefixItems: this is how it says that an array is empty.
        if (jsonSchema.prefixItems?.length === 0) {
          delete jsonSchema.prefixItems
          jsonSchema.maxItems = 0
        }
      },
    }),
  )
}

/** Without $schema: OpenAPI 3.1 says it for all. */
function bare({ $schema: _, ...schema }: { $schema?: unknown }): JsonSchema {
  return schema as JsonSchema
}
