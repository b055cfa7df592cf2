// As much of Protocol Buffers' wire format as SentencePiece's model files need.

import { ModelError } from '../model-error.js'

/** A field: varints as numbers, fixed 32-bit ones as floats, all else as bytes. */
export interface ProtobufField {
  number: number
  value: number | Uint8Array
}

/** The fields of one message, in order. @throws ModelError for bytes that are none */
export function* readProtobuf(file: string, bytes: Uint8Array): Generator<ProtobufField> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  let at = 0
  const broken = () => new ModelError(`${file}: expected a SentencePiece model, found bytes that are none at ${at}`)

  /** The low 53 bits; negative numbers, which take ten bytes, lose their sign. */
  function varint(): number {
    let value = 0
    for (let scale = 1, count = 0; ; scale *= 128, count++) {
      const byte = bytes[at++]
      if (byte === undefined || count > 9) throw broken()
      if (count < 7) value += (byte & 127) * scale
      if (byte < 128) return value
    }
  }

  while (at < bytes.length) {
    const key = varint()
    const number = Math.floor(key / 8)
    switch (key & 7) {
      case 0:
        yield { number, value: varint() }
        break
      case 1:
        if (at + 8 > bytes.length) throw broken()
        yield { number, value: bytes.subarray(at, at + 8) }
        at += 8
        break
      case 2: {
        const length = varint()
        if (length > bytes.length - at) throw broken()
        yield { number, value: bytes.subarray(at, at + length) }
        at += length
        break
      }
      case 5:
        if (at + 4 > bytes.length) throw broken()
        yield { number, value: view.getFloat32(at, true) }
        at += 4
        break
      default:
        throw broken()
    }
  }
}
