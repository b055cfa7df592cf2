// pytorch_model.bin: what the reader finds in real files of torch.save, and what it refuses in made-up ones.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { describe, expect, test } from 'vitest'
import { loadModel } from '../../src/models/load.js'
import { ModelError } from '../../src/models/model-error.js'
import { kindOf, PickleCut, type PickleDict, readPickle } from '../../src/models/pickle.js'
import type { StoredTensor } from '../../src/models/stored-tensor.js'
import { readTorch } from '../../src/models/torch-file.js'
import { numbersOf } from './numbers.js'
import { copyOf, emptyFolder, fixture, weightKinds } from './scratch.js'

describe.each(['zip', 'legacy'])('a %s file', (kind) => {
  const file = join(fixture('torch'), `odd-${kind}.bin`)

  test('has views, shared storages and every type of number where they lie', async () => {
    const tensors = new Map((await readTorch(file)).map((tensor) => [tensor.name, tensor]))
    const bytes = readFileSync(file)
    const at = (name: string) => tensors.get(name) as StoredTensor
    const float = (name: string, index: number) => bytes.readFloatLE(at(name).offset + 4 * index)
    expect([...tensors].map(([name, { dtype, shape, strides }]) => [name, dtype, shape, strides])).toEqual([
      ['matrix', 'F32', [4, 6], undefined],
      ['rows', 'F32', [2, 6], undefined],
      ['turned', 'F32', [6, 4], [1, 6]],
      ['column', 'F32', [4], [6]],
      ['one row', 'F32', [1, 6], undefined],
      ['spread', 'F32', [5], [0]],
      ['scalar', 'F32', [], undefined],
      ['empty', 'F32', [0, 7], undefined],
      ['half', 'F16', [3], undefined],
      ['brain', 'BF16', [3], undefined],
      ['double', 'F64', [2], undefined],
      ['long', 'I64', [2], undefined],
      ['mask', 'BOOL', [2, 2], undefined],
      ['parameter', 'F32', [3], undefined],
    ])
    expect([0, 23].map((i) => float('matrix', i))).toEqual([0, 23])
    expect([0, 11].map((i) => float('rows', i))).toEqual([6, 17])
    expect(float('one row', 0)).toBe(18)
    expect(at('column').offset).toBe(at('matrix').offset + 8)
    expect(at('turned').offset).toBe(at('matrix').offset)
    expect(float('scalar', 0)).toBe(1.5)
    expect([0, 1, 2].map((i) => bytes.readUInt16LE(at('half').offset + 2 * i))).toEqual([0x3c00, 0x3c00, 0x3c00])
    expect(bytes.readUInt16LE(at('brain').offset)).toBe(0x3f80)
    expect(bytes.readDoubleLE(at('double').offset)).toBe(1)
    expect(bytes.readBigInt64LE(at('long').offset + 8)).toBe(-1n)
    expect(bytes[at('mask').offset]).toBe(1)
    expect([0, 1, 2].map((i) => float('parameter', i))).toEqual([2, 2, 2])
  })
})

describe('a model', () => {
  test.each(['zip .bin', 'legacy .bin', 'sharded .bin'] as const)(
    'as %s has the numbers of safetensors',
    async (kind) => {
      const model = await loadModel(weightKinds[kind]())
      expect(numbersOf(model)).toBe(numbersOf(await loadModel(fixture('neox-parallel'))))
      expect(model.warnings).toEqual([])
    },
  )

  test('in several formats is read from safetensors', async () => {
    const folder = copyOf('neox-parallel')
    writeFileSync(join(folder, 'pytorch_model.bin'), 'broken')
    writeFileSync(join(folder, 'pytorch_model.bin.index.json'), 'broken')
    expect((await loadModel(folder)).files).toEqual([join(folder, 'model.safetensors')])
  })

  test('with numbers that do not lie row by row is refused by the name of the tensor', async () => {
    const folder = weightKinds['legacy .bin']()
    const file = join(folder, 'pytorch_model.bin')
    const bytes = readFileSync(file)
    bytes.write('K\x01K\x20', bytes.indexOf('K\x20K\x01\x86', 'latin1')) // strides (32, 1) of the first matrix
    writeFileSync(file, bytes)
    await expect(loadModel(folder)).rejects.toThrow(
      `${file}: tensor "embed_out.weight": expected numbers stored row by row, found strides [1,32] of shape [300,32]`,
    )
  })
})

// --- pickles by hand ---

const op = (code: string) => Buffer.from(code, 'latin1')
const text = (value: string) => {
  const bytes = Buffer.from(value)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([op('X'), length, bytes])
}
const name = (module: string, member: string) => op(`c${module}\n${member}\n`)
const pickle = (...parts: Buffer[]) => Buffer.concat([op('\x80\x02'), ...parts, op('.')])
const storage = (type = 'FloatStorage', key = '0', count = 6) =>
  Buffer.concat([
    op('('),
    text('storage'),
    name('torch', type),
    text(key),
    text('cpu'),
    op(`K${String.fromCharCode(count)}tQ`),
  ])
const tensor = (store: Buffer, offset: number, size: string, stride: string) =>
  Buffer.concat([
    name('torch._utils', '_rebuild_tensor_v2'),
    op('('),
    store,
    op(`K${String.fromCharCode(offset)}${size}${stride}\x89`),
    name('collections', 'OrderedDict'),
    op(')RtR'),
  ])
const read = (bytes: Buffer) => readPickle('file', bytes).value

describe('a pickle', () => {
  test.each<[string, Buffer, string]>([
    ['calls a shell', pickle(name('os', 'system'), op('('), text('touch /tmp/x'), op('tR')), '"os.system"'],
    ['calls eval', pickle(name('builtins', 'eval'), op('('), text('1'), op('tR')), '"builtins.eval"'],
    ['calls Python 2’s eval', pickle(name('__builtin__', 'eval'), op('('), text('1'), op('tR')), '"__builtin__.eval"'],
    ['opens a file', pickle(name('io', 'open'), op('('), text('/etc/passwd'), op('tR')), '"io.open"'],
    ['names a module of torch', pickle(name('torch.nn.modules.linear', 'Linear')), '"torch.nn.modules.linear.Linear"'],
    ['loads another file', pickle(name('torch', 'load')), '"torch.load"'],
    ['hides a dot in the module', pickle(name('torch._utils._rebuild_tensor_v2', '__class__')), '__class__"'],
    ['names a property of Object', pickle(name('constructor', 'constructor')), '"constructor.constructor"'],
    ['calls a class of storages', pickle(name('torch', 'FloatStorage'), op(')R')), 'found a call of torch.FloatStorage'],
    ['calls a text', pickle(text('os.system'), op(')R')), 'expected a name to call, found "os.system"'],
    ['makes an object', pickle(name('collections', 'OrderedDict'), op(')\x81')), 'the instruction 0x81'],
    ['makes an instance in the old way', pickle(op('(icollections\nOrderedDict\n')), 'the instruction 0x69'],
    ['names by the stack', pickle(text('os'), text('system'), op('\x93')), 'the instruction 0x93'],
    ['names by an extension', pickle(op('\x82\x01')), 'the instruction 0x82'],
    ['has an old persistent id', pickle(op('P0\n')), 'the instruction 0x50'],
    ['has a buffer', pickle(op('\x96\0\0\0\0\0\0\0\0')), 'the instruction 0x96'],
    ['is of another protocol', Buffer.from([0x80, 4, 0x2e]), 'expected a pickle of protocol 2, which PyTorch writes, found protocol 4'],
    ['is text', Buffer.from('<html>'), 'expected a pickle, found the byte 0x3c'],
    ['takes from an empty stack', pickle(op('a')), 'expected a value on the stack, found none'],
    ['takes a mark for a value', pickle(op('(')), 'expected a value on the stack, found none'],
    ['has no mark', pickle(op('t')), 'expected a mark on the stack, found none'],
    ['leaves two values', pickle(op('NN')), 'expected one value, found 2'],
    ['recalls what was not remembered', pickle(op('h\x07')), 'expected a value remembered under 7, found none'],
    ['sets a key of a list', pickle(op(']'), text('a'), op('Ns')), 'expected a dict to set a key of, found a list of 0'],
    ['has a number as a key', pickle(op('}K\x01Ns')), 'expected a string as the key of a dict, found 1'],
    ['has a key twice', pickle(op('}('), text('a'), op('N'), text('a'), op('Nu')), 'expected each key of a dict once, found "a" twice'],
    ['has a key without a value', pickle(op('}('), text('a'), op('u')), 'expected keys and values of a dict in pairs'],
    ['builds a list', pickle(op(']}b')), 'expected attributes of an OrderedDict, found a dict of 0 for a list of 0'],
    ['has bytes that are no text', pickle(op('U\x01\xff')), 'expected UTF-8 text'],
    ['has an unknown storage', pickle(storage('ComplexFloatStorage')), '"torch.ComplexFloatStorage"'],
    ['has a storage of half a size', pickle(op('('), text('storage'), name('torch', 'FloatStorage'), text('0'), text('cpu'), op('G\x3f\xe0\0\0\0\0\0\0tQ')), 'expected the size of storage "0", found 0.5'],
    ['has a storage of a negative size', pickle(op('('), text('storage'), name('torch', 'FloatStorage'), text('0'), text('cpu'), op('J\xff\xff\xff\xfftQ')), 'found -1'],
    ['has a persistent id of another kind', pickle(op('('), text('module'), op('tQ')), 'expected a storage'],
    ['has a tensor of a list', pickle(tensor(op(']'), 0, 'K\x02K\x03\x86', 'K\x03K\x01\x86')), 'expected a tensor (storage, offset, size, stride)'],
    ['has a tensor with a stride too few', pickle(tensor(storage(), 0, 'K\x02K\x03\x86', 'K\x01\x85')), 'expected a tensor'],
    ['has a parameter of nothing', pickle(name('torch._utils', '_rebuild_parameter'), op('(NtR')), 'expected a tensor for torch._utils._rebuild_parameter, found None'],
  ])('that %s is refused', (_, bytes, message) => {
    expect(() => read(bytes)).toThrow(ModelError)
    expect(() => read(bytes)).toThrow(message)
  }) // biome-ignore format: a table

  test('is cut short anywhere: more bytes are asked for', () => {
    const whole = pickle(op('}'), text('a'), tensor(storage(), 0, 'K\x02K\x03\x86', 'K\x03K\x01\x86'), op('s'))
    expect(kindOf(read(whole))).toBe('a dict of 1')
    for (let length = 0; length < whole.length; length++)
      expect(() => read(whole.subarray(0, length))).toThrow(PickleCut)
  })

  test('that holds itself, or nests deep, is read without end or overflow', () => {
    expect(kindOf(read(pickle(op(']q\x00h\x00a'))))).toBe('a list of 1')
    expect(kindOf(read(pickle(op(`N${'\x85'.repeat(200_000)}`))))).toBe('a tuple of 1')
  })

  test('of Python 2 has its own strings and dicts', () => {
    const value = read(pickle(name('collections', 'OrderedDict'), op('(](](U\x01aK\x05eetR')))
    expect([...(value as PickleDict)]).toEqual([['a', 5]])
  })
})

// --- zip files by hand ---

/** A zip file of uncompressed members, as Python's zipfile writes it. */
function zip(members: Record<string, Buffer>): Buffer {
  const locals: Buffer[] = []
  const entries: Buffer[] = []
  let offset = 0
  for (const [member, bytes] of Object.entries(members)) {
    const common = Buffer.alloc(26)
    common.writeUInt16LE(20, 0)
    common.writeUInt32LE(crc32(bytes), 10)
    common.writeUInt32LE(bytes.length, 14)
    common.writeUInt32LE(bytes.length, 18)
    common.writeUInt16LE(member.length, 22)
    const local = Buffer.concat([Buffer.from('PK\x03\x04'), common, Buffer.from(member), bytes])
    const tail = Buffer.alloc(14)
    tail.writeUInt32LE(offset, 10)
    entries.push(Buffer.concat([Buffer.from('PK\x01\x02\x14\x00'), common, tail, Buffer.from(member)]))
    locals.push(local)
    offset += local.length
  }
  const directory = Buffer.concat(entries)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06')
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(directory.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...locals, directory, end])
}

const good = {
  'x/data.pkl': pickle(op('}'), text('a'), tensor(storage(), 0, 'K\x02K\x03\x86', 'K\x03K\x01\x86'), op('s')),
  'x/data/0': Buffer.alloc(24),
  'x/byteorder': Buffer.from('little'),
}

async function readZip(members: Record<string, Buffer>, change: (bytes: Buffer) => Buffer = (bytes) => bytes) {
  const file = join(emptyFolder(), 'pytorch_model.bin')
  writeFileSync(file, change(zip(members)))
  return { file, result: await readTorch(file).catch((error: unknown) => error as Error) }
}

describe('a zip file', () => {
  test('by hand is read', async () => {
    const { file, result } = await readZip(good)
    expect(result).toEqual([
      { name: 'a', dtype: 'F32', shape: [2, 3], file, offset: expect.any(Number), num_bytes: 24 },
    ])
  })

  const tensors = (...parts: Buffer[]) => ({ ...good, 'x/data.pkl': pickle(op('}'), ...parts) })
  const one = (store: Buffer, offset: number, size: string, stride: string) =>
    tensors(text('a'), tensor(store, offset, size, stride), op('s'))
  test.each<[string, Record<string, Buffer>, string]>([
    ['without a pickle', { 'x/data/0': Buffer.alloc(4) }, 'expected one member data.pkl, found 0 among 1 members'],
    ['with two', { ...good, 'y/data.pkl': Buffer.alloc(4) }, 'expected one member data.pkl, found 2 among 4 members'],
    ['of a big-endian machine', { ...good, 'x/byteorder': Buffer.from('big') }, 'x/byteorder: expected "little", found "big"'],
    ['with bytes behind its pickle', { ...good, 'x/data.pkl': Buffer.concat([good['x/data.pkl'], Buffer.alloc(3)]) }, 'found its end after'],
    ['with a pickle cut short', { ...good, 'x/data.pkl': good['x/data.pkl'].subarray(0, -1) }, 'expected a whole pickle'],
    ['without a storage', { 'x/data.pkl': good['x/data.pkl'] }, 'tensor "a": expected storage "0" in the file, found none of that key'],
    ['with a storage too short', { ...good, 'x/data/0': Buffer.alloc(20) }, 'expected 24 bytes of storage "0" (6 numbers of type F32), found 20 bytes'],
    ['with a storage too long', { ...good, 'x/data/0': Buffer.alloc(28) }, 'found 28 bytes'],
    ['with a view that ends behind its storage', one(storage(), 1, 'K\x02K\x03\x86', 'K\x03K\x01\x86'), 'tensor "a": expected a view of the 6 numbers of storage "0", found shape [2,3], strides [3,1] from number 1 on'],
    ['with a stride out of its storage', one(storage(), 0, 'K\x02K\x03\x86', 'K\x04K\x01\x86'), 'expected a view of the 6 numbers'],
    ['with an empty view behind its storage', one(storage(), 7, 'K\x00\x85', 'K\x01\x85'), 'expected a view of the 6 numbers'],
    ['with a shape beyond 53 bits', one(storage(), 0, `${'\x8a\x06\0\0\0\0\0\x01'.repeat(2)}\x86`, 'K\x00K\x00\x86'), 'expected a shape that fits into a file'],
    ['of a list', { ...good, 'x/data.pkl': pickle(op(']')) }, 'expected a dict from names to tensors, found a list of 0'],
    ['of a training run', tensors(text('state_dict'), op('}s')), '"state_dict": expected a tensor, found a dict of 0'],
  ])('%s is refused', async (_, members, message) => {
    const { file, result } = await readZip(members)
    expect(result).toBeInstanceOf(ModelError)
    expect((result as Error).message).toContain(`${file}: `)
    expect((result as Error).message).toContain(message)
  }) // biome-ignore format: a table

  test('with a compressed member is refused', async () => {
    const { result } = await readZip(good, (bytes) => {
      const entry = bytes.indexOf('PK\x01\x02')
      bytes.writeUInt16LE(8, entry + 10)
      return bytes
    })
    expect((result as Error).message).toContain(
      '"x/data.pkl": expected an uncompressed member (method 0), found method 8',
    )
  })

  test('with members that overlap is refused', async () => {
    const { result } = await readZip(good, (bytes) => {
      const entry = bytes.indexOf('x/data/0', bytes.indexOf('PK\x01\x02')) - 46
      bytes.writeUInt32LE(0, entry + 42)
      return bytes
    })
    expect((result as Error).message).toMatch(/"x\/data\/0": expected to begin at \d+, .*, found 0 \(an overlap\)$/)
  })
})
