// GPT-2's table of bytes and printable characters: printable Latin-1 stands for itself, the other 68 bytes in order for U+0100,
// U+0101, ... Vocabularies of byte-level BPE are written in it.

/** byte → character */
export const byteCharacters: readonly string[] = makeTable()

/** UTF-16 unit → byte; -1: not in the table */
const unitBytes = new Int16Array(0x200).fill(-1)
byteCharacters.forEach((char, byte) => {
  unitBytes[char.charCodeAt(0)] = byte
})

/** The bytes that a token's characters stand for; a token with any other character is text as it is. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length)
  for (let at = 0; at < token.length; at++) {
    const byte = unitBytes[token.charCodeAt(at)] ?? -1
    if (byte < 0) return Buffer.from(token)
    bytes[at] = byte
  }
  return bytes
}

/** A text's UTF-8 bytes as characters of the table. */
export function toByteLevel(text: string): string {
  let mapped = ''
  for (const byte of Buffer.from(text)) mapped += byteCharacters[byte]
  return mapped
}

function makeTable(): string[] {
  let other = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
    return String.fromCharCode(printable ? byte : other++)
  })
}
