// Reads a Python pickle that can describe nothing but tensors: an allow-list in place of Python's machine.
//
// A pickle is a program for a small stack machine whose instructions name functions of Python and call them. Here the only names
// are those below, a call makes plain data, and every other name or instruction is refused. Nothing is ever executed.
// Instructions: https://github.com/python/cpython/blob/main/Lib/pickletools.py. PyTorch writes protocol 2.

import { ModelError } from './model-error.js'

/** What a pickle may hold. Lists are arrays, dicts and OrderedDicts are maps. */
export type PickleValue =
  | null
  | boolean
  | number
  | string
  | PickleValue[]
  | PickleDict
  | Tuple
  | Global
  | Storage
  | StridedTensor

export class PickleDict extends Map<string, PickleValue> {}

export class Tuple {
  constructor(readonly items: readonly PickleValue[]) {}
}

/** A function or class of the allow-list, by its full name. */
class Global {
  constructor(readonly name: string) {}
}

/** A block of numbers that tensors are views of. */
export class Storage {
  constructor(
    readonly key: string,
    /** safetensors' name of the number type. */
    readonly dtype: string,
    readonly num_numbers: number,
  ) {}
}

/** A view of a storage; offset and strides count numbers. */
export class StridedTensor {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** Classes that only say which numbers a storage holds. */
const STORAGES: Record<string, string> = {
  'torch.FloatStorage': 'F32', 'torch.HalfStorage': 'F16', 'torch.BFloat16Storage': 'BF16', 'torch.DoubleStorage': 'F64',
  'torch.LongStorage': 'I64', 'torch.IntStorage': 'I32', 'torch.ShortStorage': 'I16', 'torch.CharStorage': 'I8',
  'torch.ByteStorage': 'U8', 'torch.BoolStorage': 'BOOL',
} // biome-ignore format: a table

const REBUILD_TENSOR = 'torch._utils._rebuild_tensor_v2'
const REBUILD_PARAMETER = 'torch._utils._rebuild_parameter'
const ORDERED_DICT = 'collections.OrderedDict'
const ALLOWED = new Set([...Object.keys(STORAGES), REBUILD_TENSOR, REBUILD_PARAMETER, ORDERED_DICT])

/** The bytes end inside the pickle: more of them may help. */
export class PickleCut extends ModelError {}

/**
 * Reads the pickle that starts at `start`.
 * @param what names the file, and the part of it, in messages
 * @returns its value and the position behind it
 * @throws PickleCut when the bytes end before the pickle does, ModelError when it holds anything but plain data and tensors
 */
export function readPickle(what: string, bytes: Buffer, start = 0): { value: PickleValue; end: number } {
  return new Unpickler(what, bytes, start).run()
}

const MARK = Symbol('mark')

/** The instructions that PyTorch's pickles need, by their code. */
const INSTRUCTIONS: Record<string, (machine: Unpickler) => void> = {
  '(': (m) => m.mark(),
  N: (m) => m.push(null),
  '\x88': (m) => m.push(true),
  '\x89': (m) => m.push(false),
  K: (m) => m.push(m.byte()),
  M: (m) => m.push(m.take(2).readUInt16LE()),
  J: (m) => m.push(m.take(4).readInt32LE()),
  '\x8a': (m) => m.push(m.long(m.byte())),
  G: (m) => m.push(m.take(8).readDoubleBE()),
  X: (m) => m.push(m.utf8(m.take(m.take(4).readUInt32LE()))),
  U: (m) => m.push(m.utf8(m.take(m.byte()))), // the strings of Python 2
  T: (m) => m.push(m.utf8(m.take(m.take(4).readUInt32LE()))),
  ')': (m) => m.push(new Tuple([])),
  '\x85': (m) => m.tuple(1),
  '\x86': (m) => m.tuple(2),
  '\x87': (m) => m.tuple(3),
  t: (m) => m.push(new Tuple(m.toMark())),
  ']': (m) => m.push([]),
  a: (m) => m.append([m.pop()]),
  e: (m) => m.append(m.toMark()),
  '}': (m) => m.push(new PickleDict()),
  s: (m) => m.set([m.pop(), m.pop()].reverse()),
  u: (m) => m.set(m.toMark()),
  q: (m) => m.remember(m.byte()),
  r: (m) => m.remember(m.take(4).readUInt32LE()),
  h: (m) => m.recall(m.byte()),
  j: (m) => m.recall(m.take(4).readUInt32LE()),
  c: (m) => m.global(),
  Q: (m) => m.storage(),
  R: (m) => m.call(),
  b: (m) => m.build(),
}

class Unpickler {
  private readonly stack: (PickleValue | typeof MARK)[] = []
  private readonly memo = new Map<number, PickleValue>()
  private at: number

  constructor(
    private readonly what: string,
    private readonly bytes: Buffer,
    start: number,
  ) {
    this.at = start
  }

  run(): { value: PickleValue; end: number } {
    const [proto, version] = [this.byte(), this.byte()]
    if (proto !== 0x80) throw this.wrong('a pickle', `the byte ${hex(proto)}`)
    if (version !== 2) throw this.wrong('a pickle of protocol 2, which PyTorch writes', `protocol ${version}`)
    for (;;) {
      const code = this.byte()
      if (code === 0x2e) {
        const value = this.pop()
        if (this.stack.length > 0) throw this.wrong('one value', `${this.stack.length + 1}`)
        return { value, end: this.at }
      }
      const instruction = INSTRUCTIONS[String.fromCharCode(code)]
      if (instruction === undefined)
        throw this.wrong('an instruction that makes plain data', `the instruction ${hex(code)} at byte ${this.at - 1}`)
      instruction(this)
    }
  }

  // --- the stack ---

  mark(): void {
    this.stack.push(MARK)
  }

  push(value: PickleValue): void {
    this.stack.push(value)
  }

  pop(): PickleValue {
    const value = this.stack.pop()
    if (value === undefined || value === MARK) throw this.wrong('a value on the stack', 'none')
    return value
  }

  private top(): PickleValue {
    const value = this.pop()
    this.push(value)
    return value
  }

  /** What was pushed since the last mark. */
  toMark(): PickleValue[] {
    const mark = this.stack.lastIndexOf(MARK)
    if (mark < 0) throw this.wrong('a mark on the stack', 'none')
    const values = this.stack.splice(mark) as PickleValue[]
    return values.slice(1)
  }

  tuple(count: number): void {
    const items = Array.from({ length: count }, () => this.pop()).reverse()
    this.push(new Tuple(items))
  }

  append(values: PickleValue[]): void {
    const list = this.top()
    if (!Array.isArray(list)) throw this.wrong('a list to append to', kindOf(list))
    for (const value of values) list.push(value)
  }

  set(values: PickleValue[]): void {
    const dict = this.top()
    if (!(dict instanceof PickleDict)) throw this.wrong('a dict to set a key of', kindOf(dict))
    if (values.length % 2 !== 0) throw this.wrong('keys and values of a dict in pairs', `${values.length} values`)
    for (let i = 0; i < values.length; i += 2) this.setKey(dict, values[i] as PickleValue, values[i + 1] as PickleValue)
  }

  private setKey(dict: PickleDict, key: PickleValue, value: PickleValue): void {
    if (typeof key !== 'string') throw this.wrong('a string as the key of a dict', kindOf(key))
    if (dict.has(key)) throw this.wrong('each key of a dict once', `${JSON.stringify(key)} twice`)
    dict.set(key, value)
  }

  remember(index: number): void {
    this.memo.set(index, this.top())
  }

  recall(index: number): void {
    const value = this.memo.get(index)
    if (value === undefined) throw this.wrong(`a value remembered under ${index}`, 'none')
    this.push(value)
  }

  // --- names and calls ---

  global(): void {
    const name = `${this.line()}.${this.line()}`
    if (!ALLOWED.has(name)) {
      throw this.wrong(
        'nothing but tensors',
        `the name ${JSON.stringify(name.slice(0, 200))}, which is never called: a model's weights need none such`,
      )
    }
    this.push(new Global(name))
  }

  /** Persistent id of PyTorch: ('storage', class, key, device, numbers), in the legacy format with a view that is always None. */
  storage(): void {
    const id = this.pop()
    if (!(id instanceof Tuple)) throw this.wrong('the tuple of a storage', kindOf(id))
    const [kind, type, key, device, count, view = null] = id.items
    const dtype = type instanceof Global ? STORAGES[type.name] : undefined
    if (
      kind !== 'storage' ||
      dtype === undefined ||
      typeof key !== 'string' ||
      typeof device !== 'string' ||
      id.items.length > 6
    )
      throw this.wrong("a storage ('storage', class, key, device, size)", `(${id.items.map(kindOf).join(', ')})`)
    if (!isCount(count)) throw this.wrong(`the size of storage ${JSON.stringify(key)}`, kindOf(count))
    if (view !== null) throw this.wrong(`storage ${JSON.stringify(key)} as a whole`, 'a view of another')
    this.push(new Storage(key, dtype, count))
  }

  call(): void {
    const args = this.pop()
    const callee = this.pop()
    if (!(callee instanceof Global)) throw this.wrong('a name to call', kindOf(callee))
    if (!(args instanceof Tuple)) throw this.wrong(`a tuple of arguments for ${callee.name}`, kindOf(args))
    this.push(this.result(callee.name, args.items))
  }

  private result(name: string, args: readonly PickleValue[]): PickleValue {
    if (name === REBUILD_TENSOR) return this.tensor(args)
    if (name === ORDERED_DICT) return this.orderedDict(args)
    if (name !== REBUILD_PARAMETER) throw this.wrong('nothing but tensors', `a call of ${name}`)
    const [tensor] = args
    if (!(tensor instanceof StridedTensor)) throw this.wrong(`a tensor for ${name}`, kindOf(tensor))
    return tensor
  }

  /** _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks) */
  private tensor([storage, offset, size, stride]: readonly PickleValue[]): StridedTensor {
    const shape = size instanceof Tuple ? size.items : []
    const strides = stride instanceof Tuple ? stride.items : []
    const known = storage instanceof Storage && size instanceof Tuple && stride instanceof Tuple
    if (
      !known ||
      !isCount(offset) ||
      !shape.every(isCount) ||
      !strides.every(isCount) ||
      shape.length !== strides.length
    )
      throw this.wrong(
        'a tensor (storage, offset, size, stride)',
        `(${[storage, offset].map(kindOf).join(', ')}, (${shape.map(kindOf)}), (${strides.map(kindOf)}))`,
      )
    return new StridedTensor(storage, offset, shape, strides)
  }

  /** OrderedDict(), or OrderedDict([[key, value], ...]) of Python 2. */
  private orderedDict(args: readonly PickleValue[]): PickleDict {
    const dict = new PickleDict()
    const [pairs = []] = args
    if (args.length > 1 || !Array.isArray(pairs)) throw this.wrong(`a list of pairs for ${ORDERED_DICT}`, kindOf(pairs))
    for (const pair of pairs) {
      const items = pair instanceof Tuple ? pair.items : Array.isArray(pair) ? pair : []
      if (items.length !== 2) throw this.wrong(`a list of pairs for ${ORDERED_DICT}`, kindOf(pair))
      this.setKey(dict, items[0] as PickleValue, items[1] as PickleValue)
    }
    return dict
  }

  /** A state_dict carries attributes (`_metadata`) that say nothing about its tensors. */
  build(): void {
    const state = this.pop()
    const to = this.top()
    if (!(state instanceof PickleDict) || !(to instanceof PickleDict))
      throw this.wrong('attributes of an OrderedDict', `${kindOf(state)} for ${kindOf(to)}`)
  }

  // --- bytes ---

  byte(): number {
    const byte = this.bytes[this.at++]
    if (byte === undefined) throw this.cut()
    return byte
  }

  take(length: number): Buffer {
    if (length > this.bytes.length - this.at) throw this.cut()
    this.at += length
    return this.bytes.subarray(this.at - length, this.at)
  }

  private line(): string {
    const end = this.bytes.indexOf(0x0a, this.at)
    if (end < 0) throw this.cut()
    const text = this.utf8(this.bytes.subarray(this.at, end))
    this.at = end + 1
    return text
  }

  utf8(bytes: Buffer): string {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    } catch {
      throw this.wrong('UTF-8 text', 'bytes that are none')
    }
  }

  /** A whole number of `length` bytes, little-endian, two's complement. Those beyond 2^53 are refused, except the magic number. */
  long(length: number): number | string {
    let value = 0n
    const bytes = this.take(length)
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] as number)
    const number = Number(BigInt.asIntN(8 * length, value))
    if (Number.isSafeInteger(number)) return number
    return `0x${value.toString(16)}` // is no count anywhere
  }

  private cut(): PickleCut {
    return new PickleCut(
      `${this.what}: expected a whole pickle, found its end after ${this.bytes.length} bytes: is it complete?`,
    )
  }

  private wrong(expected: string, found: string): ModelError {
    return new ModelError(`${this.what}: expected ${expected}, found ${found}`)
  }
}

/** What a value is, for a message. Never walks into it: a list can hold itself. */
export function kindOf(value: PickleValue | undefined): string {
  if (value === undefined) return 'nothing'
  if (value instanceof Tuple) return `a tuple of ${value.items.length}`
  if (value instanceof Global) return `the name ${value.name}`
  if (value instanceof Storage) return `storage ${JSON.stringify(value.key)}`
  if (value instanceof StridedTensor) return 'a tensor'
  if (value instanceof Map) return `a dict of ${value.size}`
  if (Array.isArray(value)) return `a list of ${value.length}`
  return value === null ? 'None' : JSON.stringify(value).slice(0, 80)
}

function isCount(value: PickleValue | undefined): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function hex(byte: number): string {
  return `0x${byte.toString(16).padStart(2, '0')}`
}
