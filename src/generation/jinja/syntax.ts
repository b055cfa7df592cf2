// The syntax tree of a template.

import type { Value } from './values.js'

export interface CallArguments {
  args: Expression[]
  kwargs: [name: string, value: Expression][]
  /** *args, **kwargs */
  moreArgs: Expression | null
  moreKwargs: Expression | null
}

export type BinaryOperator = '+' | '-' | '*' | '/' | '//' | '%' | '**'
export type CompareOperator = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in'

export type Expression =
  | { kind: 'constant'; value: Value }
  | { kind: 'name'; name: string }
  | { kind: 'list' | 'tuple' | 'concat'; items: Expression[] }
  | { kind: 'dict'; pairs: [Expression, Expression][] }
  | { kind: 'attribute'; object: Expression; name: string }
  | { kind: 'item'; object: Expression; index: Expression }
  | { kind: 'slice'; object: Expression; bounds: (Expression | null)[] }
  | { kind: 'call'; callee: Expression; given: CallArguments }
  | { kind: 'filter'; operand: Expression; name: string; given: CallArguments }
  | { kind: 'test'; operand: Expression; name: string; given: CallArguments }
  | { kind: 'not' | 'negative' | 'positive'; operand: Expression }
  | { kind: 'and' | 'or'; left: Expression; right: Expression }
  | { kind: 'compare'; first: Expression; rest: [CompareOperator, Expression][] }
  | { kind: 'binary'; operator: BinaryOperator; left: Expression; right: Expression }
  | { kind: 'conditional'; test: Expression; yes: Expression; no: Expression | null }

export type Target =
  | { kind: 'name'; name: string }
  | { kind: 'namespace'; name: string; attribute: string }
  | { kind: 'tuple'; targets: Target[] }

export interface Signature {
  name: string
  /** a parameter without a default has null */
  parameters: [name: string, otherwise: Expression | null][]
  body: Statement[]
  /** special names that the body uses */
  uses: { caller: boolean; varargs: boolean; kwargs: boolean }
}

/** A filter without what it is applied to. */
export type FilterCall = [name: string, given: CallArguments]

export type Statement =
  | { kind: 'text'; text: string }
  | { kind: 'output'; value: Expression }
  | { kind: 'if'; branches: [test: Expression, body: Statement[]][]; otherwise: Statement[] }
  | {
      kind: 'for'
      target: Target
      items: Expression
      test: Expression | null
      recursive: boolean
      body: Statement[]
      otherwise: Statement[]
    }
  | { kind: 'break' | 'continue' }
  | { kind: 'set'; target: Target; value: Expression }
  | { kind: 'set block'; target: Target; filters: FilterCall[]; body: Statement[] }
  | { kind: 'filter block'; filters: FilterCall[]; body: Statement[] }
  | { kind: 'with'; values: [Target, Expression][]; body: Statement[] }
  | { kind: 'macro'; signature: Signature }
  | { kind: 'call block'; callee: Expression; given: CallArguments; signature: Signature }

/** Every variable that the tree reads. */
export function namesIn(tree: unknown, found = new Set<string>()): Set<string> {
  if (Array.isArray(tree)) for (const part of tree) namesIn(part, found)
  else if (typeof tree === 'object' && tree !== null) {
    const node = tree as { kind?: string; name?: unknown }
    if (node.kind === 'name') found.add(String(node.name))
    for (const part of Object.values(tree)) namesIn(part, found)
  }
  return found
}
