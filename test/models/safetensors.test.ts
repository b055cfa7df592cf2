import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { firstDuplicateKey } from '../../src/models/json-keys.js'
import { ModelError } from '../../src/models/model-error.js'
import { readSafetensors } from '../../src/models/safetensors.js'
import { emptyFolder, safetensors } from './scratch.js'

function fileOf(bytes: Uint8Array): string {
  const file = join(emptyFolder(), 'model.safetensors')
  writeFileSync(file, bytes)
  return file
}

/** A file whose tensors are given as dtype, shape and offsets, with 16 bytes of data. */
function withTensors(...tensors: [string, unknown, unknown, unknown][]): Buffer {
  const entries = tensors.map(([name, dtype, shape, data_offsets]) => [name, { dtype, shape, data_offsets }])
  return safetensors(JSON.stringify(Object.fromEntries(entries)), Buffer.alloc(16))
}

test('tensors are found where they lie, in any order, empty ones and scalars among them', async () => {
  const header = {
    __metadata__: { format: 'pt' },
    b: { dtype: 'BF16', shape: [2, 2], data_offsets: [4, 12] },
    scalar: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
    empty: { dtype: 'F16', shape: [0, 7], data_offsets: [4, 4] },
    half: { dtype: 'F4', shape: [2, 4], data_offsets: [12, 16] },
  }
  const text = `${JSON.stringify(header)}   `
  const file = fileOf(safetensors(text, Buffer.alloc(16)))
  const data = 8 + text.length
  expect(await readSafetensors(file)).toEqual([
    { name: 'b', dtype: 'BF16', shape: [2, 2], file, offset: data + 4, num_bytes: 8 },
    { name: 'scalar', dtype: 'F32', shape: [], file, offset: data, num_bytes: 4 },
    { name: 'empty', dtype: 'F16', shape: [0, 7], file, offset: data + 4, num_bytes: 0 },
    { name: 'half', dtype: 'F4', shape: [2, 4], file, offset: data + 12, num_bytes: 4 },
  ])
})

const good: [string, unknown, unknown, unknown] = ['a', 'F32', [4], [0, 16]]
const data = Buffer.alloc(16)
const huge = Buffer.alloc(16)
huge.writeBigUInt64LE(2n ** 63n)
const long = Buffer.alloc(16)
long.writeBigUInt64LE(1000n)

describe('a broken file is refused with what was expected and what was found:', () => {
  test.each<[string, Uint8Array, string]>([
    ['an empty file', Buffer.alloc(0), 'expected a safetensors file of at least 8 bytes, found 0 bytes'],
    [
      'a header too long to be true',
      huge,
      'expected a safetensors header of at most 100000000 bytes, found a length of 9223372036854775808',
    ],
    [
      'a header longer than the file',
      long,
      'expected at least 1008 bytes (a header of 1000 bytes), found a file of 16 bytes: is it complete?',
    ],
    ['no header', safetensors('', data), 'expected a safetensors header that starts with "{", found other bytes'],
    [
      'a list as the header',
      safetensors('[1]', data),
      'expected a safetensors header that starts with "{", found other bytes',
    ],
    [
      'a header with a space before it',
      safetensors(' {}', data),
      'expected a safetensors header that starts with "{", found other bytes',
    ],
    ['a header that is no JSON', safetensors('{"a": }', data), 'expected a JSON object, found text that is not JSON ('],
    [
      'a header that is no UTF-8',
      safetensors('{"\xff": 1}', data).fill(0xff, 10, 11),
      'expected UTF-8 text, found bytes that are none',
    ],
    [
      'a name twice',
      safetensors('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"\\u0061":{}}', data),
      'expected each name in the header once, found "a" twice',
    ],
    [
      'a key of a tensor twice',
      safetensors('{"a":{"dtype":"F32","shape":[4],"shape":[1],"data_offsets":[0,16]}}', data),
      'expected each name in the header once, found "shape" twice',
    ],
    [
      'metadata that is not of strings',
      safetensors('{"__metadata__":{"x":1}}', Buffer.alloc(0)),
      '__metadata__: expected an object of strings, found {"x":1}',
    ],
    [
      'a tensor that is no object',
      safetensors('{"a":null}', data),
      'tensor "a": expected a dtype of the safetensors format, found nothing',
    ],
    [
      'an unknown dtype',
      withTensors(['a', 'F33', [4], [0, 16]]),
      'tensor "a": expected a dtype of the safetensors format, found "F33"',
    ],
    [
      'a dtype that only looks known',
      withTensors(['a', 'toString', [4], [0, 16]]),
      'tensor "a": expected a dtype of the safetensors format, found "toString"',
    ],
    [
      'a shape with a fraction',
      withTensors(['a', 'F32', [1.5], [0, 16]]),
      'tensor "a": expected a shape of whole numbers, found [1.5]',
    ],
    [
      'a negative shape',
      withTensors(['a', 'F32', [-4], [0, 16]]),
      'tensor "a": expected a shape of whole numbers, found [-4]',
    ],
    [
      'a shape that overflows 53 bits',
      withTensors(['a', 'F32', [2 ** 30, 2 ** 30], [0, 16]]),
      'tensor "a": expected a shape that fits into a file, found [1073741824,1073741824] of F32',
    ],
    [
      'a shape that overflows 64 bits to the right size',
      withTensors(['a', 'F32', [2 ** 32, 2 ** 32, 4], [0, 16]]),
      'tensor "a": expected a shape that fits into a file',
    ],
    [
      'half a byte',
      withTensors(['a', 'F4', [3], [0, 1]]),
      'tensor "a": expected a shape that fits into a file, found [3] of F4',
    ],
    [
      'one offset',
      withTensors(['a', 'F32', [4], [0]]),
      'tensor "a": expected data_offsets of two whole numbers, found [0]',
    ],
    [
      'offsets beyond 53 bits',
      safetensors('{"a":{"dtype":"F32","shape":[4],"data_offsets":[9007199254740993,9007199254741009]}}', data),
      'tensor "a": expected data_offsets of two whole numbers',
    ],
    [
      'an end before the begin',
      withTensors(['a', 'F32', [4], [16, 0]]),
      'tensor "a": expected 16 bytes (F32 [4]), found data_offsets [16,0], -16 bytes',
    ],
    [
      'a size that is not the shape’s',
      withTensors(['a', 'F32', [3], [0, 16]]),
      'tensor "a": expected 12 bytes (F32 [3]), found data_offsets [0,16], 16 bytes',
    ],
    [
      'an overlap',
      withTensors(['a', 'F32', [2], [0, 8]], ['b', 'F32', [3], [4, 16]]),
      'tensor "b": expected data_offsets to begin at 8, where the tensor before it ends, found 4 (an overlap)',
    ],
    [
      'the same bytes twice',
      withTensors(good, ['b', 'F32', [4], [0, 16]]),
      'expected data_offsets to begin at 16, where the tensor before it ends, found 0 (an overlap)',
    ],
    [
      'a hole',
      withTensors(['a', 'F32', [1], [0, 4]], ['b', 'F32', [2], [8, 16]]),
      'tensor "b": expected data_offsets to begin at 4, where the tensor before it ends, found 8 (a hole)',
    ],
    [
      'a hole at the start',
      withTensors(['a', 'F32', [3], [4, 16]]),
      'tensor "a": expected data_offsets to begin at 0, where the tensor before it ends, found 4 (a hole)',
    ],
    ['bytes left over', withTensors(['a', 'F32', [3], [0, 12]]), 'bytes (header and tensors), found a file of'],
    ['a file cut short', withTensors(good).subarray(0, -1), 'bytes: is it complete?'],
    [
      'a Git LFS pointer',
      Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n'),
      'expected the file itself, found a Git LFS pointer to it; run "git lfs pull" for model.safetensors',
    ],
  ])('%s', async (_, bytes, message) => {
    const file = fileOf(bytes)
    const error: unknown = await readSafetensors(file).catch((reason) => reason)
    expect(error).toBeInstanceOf(ModelError)
    expect((error as Error).message).toContain(`${file}: `)
    expect((error as Error).message).toContain(message)
    expect((error as Error).message).not.toContain('\n')
  })

  test('no file', async () => {
    await expect(readSafetensors(join(emptyFolder(), 'x'))).rejects.toThrow(
      'expected a safetensors file, found no such file',
    )
  })
})

test('equal keys are found at any depth, and text that only looks like keys is not', () => {
  expect(firstDuplicateKey('{"a": {"b": 1}, "b": [{"b": 2}, {"b": "a\\": "}], "c": "a"}')).toBeNull()
  expect(firstDuplicateKey('{"a": [1, {"x": {}, "y" : 2, "\\u0078": 3}]}')).toBe('x')
  expect(firstDuplicateKey('{"a\\\\": 1, "a\\\\": 2}')).toBe('a\\')
  expect(firstDuplicateKey('{}')).toBeNull()
})
