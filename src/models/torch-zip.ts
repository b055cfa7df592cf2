// torch.save since PyTorch 1.6: a zip file of uncompressed members. <root>/data.pkl is the pickle, <root>/data/<key> a storage.
//
// The directory at the end of the file says where members lie and each member's own header says it again; both must agree, and
// together the members fill the file. Layout: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.

import type { FileHandle } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { describe, ModelError } from './model-error.js'
import { readPickle } from './pickle.js'
import { readAt } from './stored-tensor.js'
import type { ByteRange, TorchFile } from './torch-file.js'

const LOCAL = 0x04034b50
const CENTRAL = 0x02014b50
const DESCRIPTOR = 0x08074b50
const END = 0x06054b50
const END64 = 0x06064b50
const END64_LOCATOR = 0x07064b50
const MAX_DIRECTORY_BYTES = 100_000_000
const MAX_PICKLE_BYTES = 100_000_000
const HAS_DESCRIPTOR = 8 // flag: checksum and sizes stand behind the member's bytes
const NEW_NAMES = 0x800 // flag: names are UTF-8

interface Member extends ByteRange {
  name: string
  /** Of the member's own header. */
  header: number
  flags: number
  crc: number
}

export function isZip(start: Buffer): boolean {
  return start.length >= 4 && start.readUInt32LE() === LOCAL
}

export async function readTorchZip(file: string, handle: FileHandle, size: number): Promise<TorchFile> {
  const { members, directory } = await readDirectory(file, handle, size)
  await placeMembers(file, handle, members, directory)
  const pickles = members.filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name))
  const [pickle] = pickles
  if (pickle === undefined || pickles.length > 1)
    throw new ModelError(
      `${file}: expected one member data.pkl, found ${pickles.length} among ${members.length} members`,
    )
  const root = pickle.name.slice(0, -'data.pkl'.length)
  await refuseBigEndian(file, handle, members, root)
  const storages = new Map<string, ByteRange>()
  for (const member of members) {
    if (!member.name.startsWith(`${root}data/`)) continue
    storages.set(member.name.slice(root.length + 'data/'.length), member)
  }
  return { state: await readState(file, handle, pickle), storages }
}

async function readState(file: string, handle: FileHandle, pickle: Member): Promise<TorchFile['state']> {
  const what = `${file}: ${pickle.name}`
  if (pickle.num_bytes > MAX_PICKLE_BYTES)
    throw new ModelError(`${what}: expected at most ${MAX_PICKLE_BYTES} bytes, found ${pickle.num_bytes}`)
  const bytes = await readAt(file, handle, pickle.offset, pickle.num_bytes)
  // 0: PyTorch was told not to compute it.
  if (pickle.crc !== 0 && crc32(bytes) !== pickle.crc)
    throw new ModelError(
      `${what}: expected bytes with the checksum ${pickle.crc}, found ${crc32(bytes)}: the file is damaged`,
    )
  const { value, end } = readPickle(what, bytes)
  if (end !== bytes.length)
    throw new ModelError(`${what}: expected a pickle of ${bytes.length} bytes, found its end after ${end}`)
  return value
}

async function refuseBigEndian(file: string, handle: FileHandle, members: Member[], root: string): Promise<void> {
  const order = members.find(({ name }) => name === `${root}byteorder`)
  if (order === undefined) return
  const text = (await readAt(file, handle, order.offset, Math.min(order.num_bytes, 16))).toString('latin1')
  if (text !== 'little') throw new ModelError(`${file}: ${order.name}: expected "little", found ${describe(text)}`)
}

// --- the directory ---

async function readDirectory(
  file: string,
  handle: FileHandle,
  size: number,
): Promise<{ members: Member[]; directory: number }> {
  const end = await readEnd(file, handle, size)
  const bytes = await readAt(file, handle, end.offset, end.num_bytes)
  const members: Member[] = []
  let at = 0
  while (at < bytes.length) {
    const { member, next } = parseEntry(file, bytes, at)
    members.push(member)
    at = next
  }
  if (members.length !== end.count)
    throw new ModelError(`${file}: expected a directory of ${end.count} members, found ${members.length}`)
  const names = new Set<string>()
  for (const { name } of members) {
    if (names.has(name)) throw new ModelError(`${file}: expected each member once, found ${describe(name)} twice`)
    names.add(name)
  }
  return { members, directory: end.offset }
}

/** Where the directory lies and how many members it has: the last 22 bytes, or, before them, a wider record with the same. */
async function readEnd(file: string, handle: FileHandle, size: number): Promise<ByteRange & { count: number }> {
  const wrong = (expected: string, found: string) => new ModelError(`${file}: expected ${expected}, found ${found}`)
  const start = size - 22
  const bytes = start < 0 ? Buffer.alloc(22) : await readAt(file, handle, start, 22)
  if (bytes.readUInt32LE() !== END || bytes.readUInt16LE(20) !== 0)
    throw wrong(`the end of a zip file in its last 22 bytes`, 'other bytes: is it complete?')
  let end = {
    disks: bytes.readUInt16LE(4) + bytes.readUInt16LE(6),
    here: bytes.readUInt16LE(8),
    count: bytes.readUInt16LE(10),
    num_bytes: bytes.readUInt32LE(12),
    offset: bytes.readUInt32LE(16),
  }
  let directoryEnd = start
  const locatorStart = start - 20
  const locator = locatorStart < 0 ? Buffer.alloc(20) : await readAt(file, handle, locatorStart, 20)
  if (locator.readUInt32LE() === END64_LOCATOR) {
    directoryEnd = safe(file, locator.readBigUInt64LE(8))
    if (locator.readUInt32LE(4) !== 0 || locator.readUInt32LE(16) > 1 || directoryEnd !== locatorStart - 56)
      throw wrong(`the zip64 end record at ${locatorStart - 56}`, `one at ${directoryEnd}`)
    const wide = await readAt(file, handle, directoryEnd, 56)
    if (wide.readUInt32LE() !== END64 || wide.readBigUInt64LE(4) !== 44n)
      throw wrong(`a zip64 end record of 56 bytes at ${directoryEnd}`, 'other bytes')
    const narrow = end
    end = {
      disks: wide.readUInt32LE(16) + wide.readUInt32LE(20),
      here: safe(file, wide.readBigUInt64LE(24)),
      count: safe(file, wide.readBigUInt64LE(32)),
      num_bytes: safe(file, wide.readBigUInt64LE(40)),
      offset: safe(file, wide.readBigUInt64LE(48)),
    }
    for (const [key, full] of [
      ['here', 0xffff],
      ['count', 0xffff],
      ['num_bytes', 0xffffffff],
      ['offset', 0xffffffff],
    ] as const) {
      if (narrow[key] !== full && narrow[key] !== end[key])
        throw wrong(`the same directory in both end records (${key} ${end[key]})`, `${narrow[key]}`)
    }
  }
  if (end.disks !== 0 || end.here !== end.count) throw wrong('a zip file in one piece', `several (${end.disks} disks)`)
  if (end.num_bytes > MAX_DIRECTORY_BYTES)
    throw wrong(`a directory of at most ${MAX_DIRECTORY_BYTES} bytes`, `${end.num_bytes}`)
  if (directoryEnd < 0 || end.offset + end.num_bytes !== directoryEnd)
    throw wrong(`a directory that ends at ${directoryEnd}`, `${end.num_bytes} bytes at ${end.offset}: is it complete?`)
  return end
}

function parseEntry(file: string, bytes: Buffer, at: number): { member: Member; next: number } {
  if (bytes.length - at < 46 || bytes.readUInt32LE(at) !== CENTRAL)
    throw new ModelError(`${file}: expected an entry at byte ${at} of the directory, found other bytes`)
  const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => bytes.readUInt16LE(at + field)) as [
    number,
    number,
    number,
  ]
  const next = at + 46 + nameLength + extraLength + commentLength
  if (next > bytes.length)
    throw new ModelError(
      `${file}: expected an entry of ${next - at} bytes at byte ${at} of the directory, found its end`,
    )
  const name = bytes.toString('utf8', at + 46, at + 46 + nameLength)
  const where = `${file}: ${describe(name)}`
  const method = bytes.readUInt16LE(at + 10)
  const flags = bytes.readUInt16LE(at + 8)
  if (method !== 0) throw new ModelError(`${where}: expected an uncompressed member (method 0), found method ${method}`)
  if ((flags & ~(HAS_DESCRIPTOR | NEW_NAMES)) !== 0)
    throw new ModelError(`${where}: expected a plain member, found flags 0x${flags.toString(16)}`)
  const narrow = [bytes.readUInt32LE(at + 24), bytes.readUInt32LE(at + 20), bytes.readUInt32LE(at + 42)]
  const extra = bytes.subarray(at + 46 + nameLength, at + 46 + nameLength + extraLength)
  const [num_bytes, stored, header] = widen(where, narrow, extra) as [number, number, number]
  if (num_bytes !== stored)
    throw new ModelError(`${where}: expected ${num_bytes} bytes as they are, found ${stored} stored ones`)
  const disk = bytes.readUInt16LE(at + 34)
  if (disk !== 0) throw new ModelError(`${where}: expected a zip file in one piece, found disk ${disk}`)
  return { member: { name, header, flags, crc: bytes.readUInt32LE(at + 16), num_bytes, offset: 0 }, next }
}

/** Fields that do not fit into 32 bits are all ones and stand, in order, in the extra field of zip64 (id 1). */
function widen(where: string, fields: number[], extra: Buffer): number[] {
  let wide: Buffer | null = null
  for (let at = 0; at + 4 <= extra.length; ) {
    const length = extra.readUInt16LE(at + 2)
    if (at + 4 + length > extra.length)
      throw new ModelError(`${where}: expected an extra field of ${length} bytes, found ${extra.length - at - 4}`)
    if (extra.readUInt16LE(at) === 1) wide = extra.subarray(at + 4, at + 4 + length)
    at += 4 + length
  }
  let at = 0
  return fields.map((field) => {
    if (field !== 0xffffffff) return field
    if (wide === null || at + 8 > wide.length) throw new ModelError(`${where}: expected a zip64 field, found none`)
    at += 8
    return safe(where, wide.readBigUInt64LE(at - 8))
  })
}

// --- the members ---

/** Reads each member's own header, which says where its bytes begin, and checks that members fill the file up to the directory. */
async function placeMembers(file: string, handle: FileHandle, members: Member[], directory: number): Promise<void> {
  let end = 0
  for (const member of members.toSorted((a, b) => a.header - b.header)) {
    if (member.header !== end) {
      const kind = member.header < end ? 'an overlap' : 'a hole'
      throw new ModelError(
        `${file}: ${describe(member.name)}: expected to begin at ${end}, where the member before it ends, found ${member.header} (${kind})`,
      )
    }
    await placeMember(file, handle, member, directory)
    end = member.offset + member.num_bytes + (await descriptorBytes(file, handle, member, directory))
  }
  if (end !== directory)
    throw new ModelError(`${file}: expected the directory at ${end}, where the last member ends, found ${directory}`)
}

/** Length of what follows a member's bytes: its checksum and sizes once more, the sizes in 32 or 64 bits. */
async function descriptorBytes(file: string, handle: FileHandle, member: Member, directory: number): Promise<number> {
  if ((member.flags & HAS_DESCRIPTOR) === 0) return 0
  const at = member.offset + member.num_bytes
  const bytes = await readAt(file, handle, at, Math.min(24, directory - at))
  if (bytes.length >= 16 && bytes.readUInt32LE() === DESCRIPTOR && bytes.readUInt32LE(4) === member.crc) {
    if ([8, 12].every((field) => bytes.readUInt32LE(field) === member.num_bytes)) return 16
    const size = BigInt(member.num_bytes)
    if (bytes.length === 24 && [8, 16].every((field) => bytes.readBigUInt64LE(field) === size)) return 24
  }
  throw new ModelError(
    `${file}: ${describe(member.name)}: expected its checksum and size again at ${at}, found other bytes`,
  )
}

async function placeMember(file: string, handle: FileHandle, member: Member, directory: number): Promise<void> {
  const wrong = (expected: string, found: string) =>
    new ModelError(`${file}: ${describe(member.name)}: expected ${expected}, found ${found}`)
  const nameBytes = Buffer.from(member.name)
  const fixed = 30 + nameBytes.length
  if (member.header + fixed > directory) throw wrong(`a header at ${member.header}`, `the directory at ${directory}`)
  const bytes = await readAt(file, handle, member.header, fixed)
  if (bytes.readUInt32LE() !== LOCAL) throw wrong(`a header at ${member.header}`, 'other bytes')
  if (bytes.readUInt16LE(26) !== nameBytes.length || !bytes.subarray(30).equals(nameBytes))
    throw wrong('its name in its own header', 'another')
  if (bytes.readUInt16LE(6) !== member.flags || bytes.readUInt16LE(8) !== 0)
    throw wrong(
      'an uncompressed member with the flags of the directory',
      `flags ${bytes.readUInt16LE(6)}, method ${bytes.readUInt16LE(8)}`,
    )
  for (const field of [18, 22]) {
    const found = bytes.readUInt32LE(field)
    const deferred = (member.flags & HAS_DESCRIPTOR) !== 0 && found === 0
    if (found !== member.num_bytes && found !== 0xffffffff && !deferred)
      throw wrong(`${member.num_bytes} bytes, as the directory says`, `${found} in its own header`)
  }
  member.offset = member.header + fixed + bytes.readUInt16LE(28)
  if (member.offset + member.num_bytes > directory)
    throw wrong(`${member.num_bytes} bytes at ${member.offset}`, `the directory at ${directory}: is it complete?`)
}

/** A 64-bit count as an exact number. */
function safe(where: string, count: bigint): number {
  if (count <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(count)
  throw new ModelError(`${where}: expected a size below 2^53, found ${count}`)
}
