// Many byte strings back to back in memory that threads can share, and a hash table that finds them again.

/** Byte strings by id; an id without one has the empty one. */
export interface ByteStrings {
  bytes: Uint8Array
  /** string i is bytes[starts[i], starts[i + 1]) */
  starts: Uint32Array
}

/** @param size one more than the highest id */
export function packByteStrings(
  strings: Iterable<readonly [id: number, bytes: Uint8Array]>,
  size: number,
): ByteStrings {
  const byId = new Array<Uint8Array | undefined>(size)
  for (const [id, bytes] of strings) byId[id] = bytes
  const starts = sharedUint32(size + 1)
  for (let id = 0; id < size; id++) starts[id + 1] = (starts[id] ?? 0) + (byId[id]?.length ?? 0)
  const bytes = new Uint8Array(new SharedArrayBuffer(starts[size] ?? 0))
  byId.forEach((string, id) => {
    if (string !== undefined) bytes.set(string, starts[id])
  })
  return { bytes, starts }
}

export function byteStringOf({ bytes, starts }: ByteStrings, id: number): Uint8Array {
  return bytes.subarray(starts[id] ?? 0, starts[id + 1] ?? 0)
}

/** Open addressing: two numbers a slot, the hash and the id + 1; 0 is empty. */
export interface ByteStringTable {
  slots: Int32Array
  strings: ByteStrings
}

/** @param ids those that are to be found; of two with the same bytes the later one */
export function tableOf(strings: ByteStrings, ids: Iterable<number>, count: number): ByteStringTable {
  let capacity = 16
  while (capacity < 2 * count) capacity *= 2
  const table = { slots: sharedInt32(2 * capacity), strings }
  for (const id of ids) {
    const string = byteStringOf(strings, id)
    let hash = hashStart
    for (const byte of string) hash = hashByte(hash, byte)
    const slot = slotOf(table, hash, string, 0, string.length)
    table.slots[slot] = hash
    table.slots[slot + 1] = id + 1
  }
  return table
}

// FNV-1a: the hash of a longer string goes on from the hash of a shorter one.
export const hashStart = 0x811c9dc5 | 0

export function hashByte(hash: number, byte: number): number {
  return Math.imul(hash ^ byte, 0x01000193)
}

/** The id of text[start, end), or -1. @param hash its hash */
export function findBytes(table: ByteStringTable, hash: number, text: Uint8Array, start: number, end: number): number {
  return (table.slots[slotOf(table, hash, text, start, end) + 1] as number) - 1
}

/** Where a string stands in the table, or the empty slot where it would. */
function slotOf(
  { slots, strings }: ByteStringTable,
  hash: number,
  text: Uint8Array,
  start: number,
  end: number,
): number {
  const { bytes, starts } = strings
  const mask = slots.length / 2 - 1
  // The low bits of FNV are its weakest.
  for (let i = (hash ^ (hash >>> 15)) & mask; ; i = (i + 1) & mask) {
    const id = (slots[2 * i + 1] as number) - 1
    if (id < 0) return 2 * i
    if (slots[2 * i] !== hash) continue
    const from = starts[id] as number
    if ((starts[id + 1] as number) - from !== end - start) continue
    let at = 0
    while (at < end - start && bytes[from + at] === text[start + at]) at++
    if (at === end - start) return 2 * i
  }
}

export function sharedInt32(length: number): Int32Array {
  return new Int32Array(new SharedArrayBuffer(4 * length))
}

export function sharedUint32(length: number): Uint32Array {
  return new Uint32Array(new SharedArrayBuffer(4 * length))
}
