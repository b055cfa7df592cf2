// Tokens → syntax tree: Jinja's grammar.

import { TemplateError } from './errors.js'
import { type Token, tokenize } from './lexer.js'
import {
  type BinaryOperator,
  type CallArguments,
  type CompareOperator,
  type Expression,
  type FilterCall,
  namesIn,
  type Signature,
  type Statement,
  type Target,
} from './syntax.js'
import { Float, type Value } from './values.js'

/** Statements of Jinja that need other templates or extensions, which chat templates do not have. */
const unsupported = 'include import from extends block autoescape do debug trans print'.split(' ')

const compareOperators = ['==', '!=', '<', '<=', '>', '>=']

/** @throws TemplateError for what is no Jinja, or Jinja that is not supported */
export function parse(source: string): Statement[] {
  return new Parser(tokenize(source)).template()
}

class Parser {
  readonly #tokens: Token[]
  #next = 0
  /** How many loops stand around the statement. */
  #loops = 0

  constructor(tokens: Token[]) {
    this.#tokens = tokens
  }

  template(): Statement[] {
    return this.#statements([])
  }

  // ---- tokens

  get #token(): Token | undefined {
    return this.#tokens[this.#next]
  }

  #is(type: Token['type'], ...values: string[]): boolean {
    const token = this.#token
    return token?.type === type && (values.length === 0 || values.includes(token.value))
  }

  #isAhead(type: Token['type'], value: string): boolean {
    const token = this.#tokens[this.#next + 1]
    return token?.type === type && token.value === value
  }

  #skip(type: Token['type'], value: string): boolean {
    if (!this.#is(type, value)) return false
    this.#next++
    return true
  }

  #take(type: Token['type'], value?: string): string {
    const token = this.#token
    if (token?.type !== type || (value !== undefined && token.value !== value))
      return this.#fail(value ?? (type === 'end' ? 'the end of the tag' : `a ${type}`))
    this.#next++
    return token.value
  }

  /** @throws TemplateError with the line of the next token */
  #refuse(message: string): never {
    throw new TemplateError(`line ${(this.#token ?? this.#tokens.at(-1))?.line ?? 1}: ${message}`)
  }

  #fail(expected: string): never {
    const token = this.#token
    const found =
      token === undefined
        ? 'the end of the template'
        : token.type === 'end'
          ? 'the end of the tag'
          : `'${token.value.slice(0, 40)}'`
    this.#refuse(`expected ${expected}, found ${found}`)
  }

  // ---- statements

  /** Statements up to a tag that begins with one of the names, which is left as the next token. */
  #statements(until: string[]): Statement[] {
    const body: Statement[] = []
    for (;;) {
      const token = this.#token
      if (token === undefined) {
        if (until.length === 0) return body
        this.#fail(`{% ${until.join(' %} or {% ')} %}`)
      }
      this.#next++
      if (token.type === 'text') {
        body.push({ kind: 'text', text: token.value })
      } else if (token.value === '{') {
        body.push({ kind: 'output', value: this.#tuple() })
        this.#take('end')
      } else {
        if (until.length > 0 && this.#is('name', ...until)) return body
        const statement = this.#statement()
        if (statement !== null) body.push(...statement)
        this.#take('end')
      }
    }
  }

  /** The body of a block, and the name behind it, which is taken. */
  #block(...until: string[]): [body: Statement[], end: string] {
    this.#skip('operator', ':')
    this.#take('end')
    const body = this.#statements(until)
    return [body, this.#take('name')]
  }

  #statement(): Statement[] | null {
    const name = this.#is('name') ? (this.#token?.value ?? '') : this.#fail('the name of a statement')
    if (unsupported.includes(name)) this.#refuse(`{% ${name} %} is not supported in chat templates`)
    this.#next++
    switch (name) {
      case 'if':
        return [this.#if()]
      case 'for':
        return [this.#for()]
      case 'set':
        return [this.#set()]
      case 'macro': {
        const macro = this.#take('name')
        return [{ kind: 'macro', signature: this.#signature(macro, this.#parameters(), 'endmacro') }]
      }
      case 'call': {
        const parameters = this.#is('operator', '(') ? this.#parameters() : []
        const call = this.#expression()
        if (call.kind !== 'call') this.#fail('a call')
        const { callee, given } = call as Extract<Expression, { kind: 'call' }>
        return [{ kind: 'call block', callee, given, signature: this.#signature('caller', parameters, 'endcall') }]
      }
      case 'filter': {
        const filters = this.#filters(true)
        return [{ kind: 'filter block', filters, body: this.#inner('endfilter') }]
      }
      case 'with':
        return [this.#with()]
      case 'generation':
        // Marks for training what the assistant says; here it is a scope like any other.
        return [{ kind: 'with', values: [], body: this.#inner('endgeneration') }]
      case 'break':
      case 'continue':
        if (this.#loops === 0) this.#refuse(`{% ${name} %} outside of a loop`)
        return [{ kind: name }]
      default:
        this.#next--
        return this.#fail('a statement of Jinja')
    }
  }

  /** A body that is no part of the loops around it. */
  #inner(end: string): Statement[] {
    const loops = this.#loops
    this.#loops = 0
    const [body] = this.#block(end)
    this.#loops = loops
    return body
  }

  #if(): Statement {
    const branches: [Expression, Statement[]][] = []
    for (;;) {
      const test = this.#tuple(false)
      const [body, end] = this.#block('elif', 'else', 'endif')
      branches.push([test, body])
      if (end === 'endif') return { kind: 'if', branches, otherwise: [] }
      if (end === 'else') return { kind: 'if', branches, otherwise: this.#block('endif')[0] }
    }
  }

  #for(): Statement {
    const target = this.#target('in')
    this.#take('name', 'in')
    const items = this.#tuple(false, 'recursive')
    const test = this.#skip('name', 'if') ? this.#expression() : null
    const recursive = this.#skip('name', 'recursive')
    this.#loops++
    const [body, end] = this.#block('endfor', 'else')
    this.#loops--
    const otherwise = end === 'else' ? this.#block('endfor')[0] : []
    return { kind: 'for', target, items, test, recursive, body, otherwise }
  }

  #set(): Statement {
    const target = this.#target()
    if (this.#skip('operator', '=')) return { kind: 'set', target, value: this.#tuple() }
    const filters = this.#filters(false)
    return { kind: 'set block', target, filters, body: this.#inner('endset') }
  }

  #with(): Statement {
    const values: [Target, Expression][] = []
    while (!this.#is('end')) {
      if (values.length > 0) this.#take('operator', ',')
      const target = this.#target()
      this.#take('operator', '=')
      values.push([target, this.#expression()])
    }
    return { kind: 'with', values, body: this.#block('endwith')[0] }
  }

  #parameters(): Signature['parameters'] {
    const parameters: Signature['parameters'] = []
    this.#take('operator', '(')
    while (!this.#is('operator', ')')) {
      if (parameters.length > 0) this.#take('operator', ',')
      const name = this.#take('name')
      const otherwise = this.#skip('operator', '=') ? this.#expression() : null
      if (otherwise === null && parameters.at(-1)?.[1])
        this.#refuse('a parameter without a default behind one that has one')
      parameters.push([name, otherwise])
    }
    this.#take('operator', ')')
    return parameters
  }

  #signature(name: string, parameters: Signature['parameters'], end: string): Signature {
    const body = this.#inner(end)
    const names = namesIn(body)
    const declared = new Set(parameters.map(([parameter]) => parameter))
    const uses = (special: string) => names.has(special) && !declared.has(special)
    return {
      name,
      parameters,
      body,
      uses: { caller: uses('caller'), varargs: uses('varargs'), kwargs: uses('kwargs') },
    }
  }

  /** Names to assign to, up to `=`, the end of the tag or the name `until`. */
  #target(until?: string): Target {
    const targets: Target[] = []
    let isTuple = false
    do {
      if (targets.length > 0) isTuple = true
      if (this.#is('end') || this.#is('operator', '=', ')') || (until !== undefined && this.#is('name', until))) break
      targets.push(this.#oneTarget(until))
    } while (this.#skip('operator', ','))
    const [first] = targets
    if (first === undefined) return this.#fail('a name to assign to')
    return isTuple ? { kind: 'tuple', targets } : first
  }

  #oneTarget(until?: string): Target {
    if (this.#skip('operator', '(')) {
      const target = this.#target()
      this.#take('operator', ')')
      return target
    }
    const name = this.#take('name')
    if (/^(?:true|false|none)$/i.test(name)) this.#refuse(`'${name}' cannot be assigned to`)
    if (until === undefined && this.#skip('operator', '.')) {
      return { kind: 'namespace', name, attribute: this.#take('name') }
    }
    return { kind: 'name', name }
  }

  /** Filters in a row: `| a | b(1)`, or `a | b(1)` where the first one has no bar. */
  #filters(startsWithName: boolean): FilterCall[] {
    const filters: FilterCall[] = []
    while (startsWithName ? filters.length === 0 || this.#skip('operator', '|') : this.#skip('operator', '|')) {
      filters.push(this.#filter())
    }
    return filters
  }

  #filter(): FilterCall {
    const name = this.#take('name')
    return [name, this.#is('operator', '(') ? this.#arguments() : noArguments]
  }

  // ---- expressions, weakest binding first

  /** One expression, or several with commas: a tuple. */
  #tuple(withConditional = true, until?: string, inParentheses = false): Expression {
    const items: Expression[] = []
    let isTuple = false
    for (;;) {
      const ends = this.#is('end') || this.#is('operator', ')') || (until !== undefined && this.#is('name', until))
      if (ends) break
      items.push(withConditional ? this.#expression() : this.#or())
      if (!this.#skip('operator', ',')) break
      isTuple = true
    }
    if (isTuple || (inParentheses && items.length === 0)) return { kind: 'tuple', items }
    return items[0] ?? this.#fail('an expression')
  }

  #expression(): Expression {
    let result = this.#or()
    while (this.#skip('name', 'if')) {
      const test = this.#or()
      const no = this.#skip('name', 'else') ? this.#expression() : null
      result = { kind: 'conditional', test, yes: result, no }
    }
    return result
  }

  #or(): Expression {
    let left = this.#and()
    while (this.#skip('name', 'or')) left = { kind: 'or', left, right: this.#and() }
    return left
  }

  #and(): Expression {
    let left = this.#not()
    while (this.#skip('name', 'and')) left = { kind: 'and', left, right: this.#not() }
    return left
  }

  #not(): Expression {
    return this.#skip('name', 'not') ? { kind: 'not', operand: this.#not() } : this.#compare()
  }

  #compare(): Expression {
    const first = this.#sum()
    const rest: [CompareOperator, Expression][] = []
    for (;;) {
      if (this.#is('operator', ...compareOperators)) {
        const operator = this.#take('operator') as CompareOperator
        rest.push([operator, this.#sum()])
      } else if (this.#skip('name', 'in')) {
        rest.push(['in', this.#sum()])
      } else if (this.#is('name', 'not') && this.#isAhead('name', 'in')) {
        this.#next += 2
        rest.push(['not in', this.#sum()])
      } else {
        return rest.length === 0 ? first : { kind: 'compare', first, rest }
      }
    }
  }

  #binary(operators: BinaryOperator[], operand: () => Expression): Expression {
    let left = operand()
    while (this.#is('operator', ...operators)) {
      const operator = this.#take('operator') as BinaryOperator
      left = { kind: 'binary', operator, left, right: operand() }
    }
    return left
  }

  #sum(): Expression {
    return this.#binary(['+', '-'], () => this.#concat())
  }

  #concat(): Expression {
    const first = this.#product()
    if (!this.#is('operator', '~')) return first
    const items = [first]
    while (this.#skip('operator', '~')) items.push(this.#product())
    return { kind: 'concat', items }
  }

  #product(): Expression {
    return this.#binary(['*', '/', '//', '%'], () => this.#power())
  }

  #power(): Expression {
    return this.#binary(['**'], () => this.#unary(true))
  }

  #unary(withFilters: boolean): Expression {
    let result: Expression
    if (this.#skip('operator', '-')) result = { kind: 'negative', operand: this.#unary(false) }
    else if (this.#skip('operator', '+')) result = { kind: 'positive', operand: this.#unary(false) }
    else result = this.#primary()
    result = this.#postfix(result)
    return withFilters ? this.#filtered(result) : result
  }

  #primary(): Expression {
    const token = this.#token
    if (token?.type === 'name') {
      this.#next++
      if (token.value in constants) return { kind: 'constant', value: constants[token.value] ?? null }
      return { kind: 'name', name: token.value }
    }
    if (token?.type === 'string') {
      let value = ''
      while (this.#is('string')) value += this.#take('string')
      return { kind: 'constant', value }
    }
    if (token?.type === 'integer' || token?.type === 'float') {
      this.#next++
      const value = Number(token.value.replaceAll('_', ''))
      if (token.type === 'float') return { kind: 'constant', value: new Float(value) }
      if (!Number.isSafeInteger(value)) throw new TemplateError(`line ${token.line}: ${token.value} is too large`)
      return { kind: 'constant', value }
    }
    if (this.#skip('operator', '(')) {
      const result = this.#tuple(true, undefined, true)
      this.#take('operator', ')')
      return result
    }
    if (this.#skip('operator', '[')) {
      return { kind: 'list', items: this.#separated(']', () => this.#expression()) }
    }
    if (this.#skip('operator', '{')) {
      const pairs = this.#separated('}', (): [Expression, Expression] => {
        const key = this.#expression()
        this.#take('operator', ':')
        return [key, this.#expression()]
      })
      return { kind: 'dict', pairs }
    }
    return this.#fail('an expression')
  }

  /** Items with commas between and perhaps behind them, and what closes the list. */
  #separated<T>(close: string, item: () => T): T[] {
    const items: T[] = []
    while (!this.#skip('operator', close)) {
      if (items.length > 0) {
        this.#take('operator', ',')
        if (this.#skip('operator', close)) break
      }
      items.push(item())
    }
    return items
  }

  #postfix(start: Expression): Expression {
    let result = start
    for (;;) {
      if (this.#skip('operator', '.')) {
        if (this.#is('integer')) {
          result = { kind: 'item', object: result, index: { kind: 'constant', value: Number(this.#take('integer')) } }
        } else result = { kind: 'attribute', object: result, name: this.#take('name') }
      } else if (this.#skip('operator', '[')) result = this.#subscript(result)
      else if (this.#is('operator', '(')) result = { kind: 'call', callee: result, given: this.#arguments() }
      else return result
    }
  }

  #subscript(object: Expression): Expression {
    const bounds: (Expression | null)[] = []
    let colons = 0
    while (!this.#is('operator', ']')) {
      if (this.#skip('operator', ':')) {
        if (bounds.length === colons) bounds.push(null)
        if (++colons > 2) this.#fail("']'")
      } else if (bounds.length === colons) bounds.push(this.#expression())
      else this.#fail("']'")
    }
    this.#next++
    if (colons > 0) return { kind: 'slice', object, bounds }
    return { kind: 'item', object, index: bounds[0] ?? this.#fail('an index') }
  }

  #filtered(start: Expression): Expression {
    let result = start
    for (;;) {
      if (this.#skip('operator', '|')) {
        const [name, given] = this.#filter()
        result = { kind: 'filter', operand: result, name, given }
      } else if (this.#skip('name', 'is')) result = this.#test(result)
      else if (this.#is('operator', '(')) result = { kind: 'call', callee: result, given: this.#arguments() }
      else return result
    }
  }

  #test(operand: Expression): Expression {
    const negated = this.#skip('name', 'not')
    const name = this.#take('name')
    let given = noArguments
    if (this.#is('operator', '(')) given = this.#arguments()
    else if (
      this.#is('string') ||
      this.#is('integer') ||
      this.#is('float') ||
      this.#is('operator', '[', '{') ||
      (this.#is('name') && !this.#is('name', 'else', 'or', 'and'))
    ) {
      if (this.#is('name', 'is')) this.#refuse('tests cannot be chained with is')
      given = { ...noArguments, args: [this.#postfix(this.#primary())] }
    }
    const test: Expression = { kind: 'test', operand, name, given }
    return negated ? { kind: 'not', operand: test } : test
  }

  #arguments(): CallArguments {
    const given: CallArguments = { args: [], kwargs: [], moreArgs: null, moreKwargs: null }
    this.#take('operator', '(')
    this.#separated(')', () => {
      if (given.moreKwargs === null && given.moreArgs === null && this.#skip('operator', '*')) {
        given.moreArgs = this.#expression()
      } else if (given.moreKwargs === null && this.#skip('operator', '**')) {
        given.moreKwargs = this.#expression()
      } else if (given.moreKwargs === null && this.#is('name') && this.#isAhead('operator', '=')) {
        const name = this.#take('name')
        this.#next++
        given.kwargs.push([name, this.#expression()])
      } else if (given.moreKwargs === null && given.moreArgs === null && given.kwargs.length === 0) {
        given.args.push(this.#expression())
      } else this.#refuse('arguments must come in the order a, k=b, *c, **d')
    })
    return given
  }
}

const noArguments: CallArguments = { args: [], kwargs: [], moreArgs: null, moreKwargs: null }

const constants: Record<string, Value> = Object.assign(Object.create(null), {
  true: true,
  True: true,
  false: false,
  False: false,
  none: null,
  None: null,
})
