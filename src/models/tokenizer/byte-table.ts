// GPT-2's table of bytes and printable characters: printable Latin-1 stands for itself, the other 68 bytes in order for U+0100,
// U+0101, ... Vocabularies of byte-level BPE are written in it.

/** byte → character */
export const byteCharacters: readonly string[] = makeTable()

/** character → byte */
export const characterBytes: ReadonlyMap<string, number> = new Map(byteCharacters.map((char, byte) => [char, byte]))

/** The bytes that a token's characters stand for; a token with any other character is text as it is. */
export function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length)
  for (let at = 0; at < token.length; at++) {
    const byte = characterBytes.get(token[at] as string)
    if (byte === undefined) return Buffer.from(token)
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
