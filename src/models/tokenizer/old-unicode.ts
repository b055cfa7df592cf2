// Hugging Face's tokenizers have tables of older Unicode versions than JavaScript. What has come since are characters without
// properties there. (Found by comparing all code points with tokenizers 0.23; regular expressions have Unicode 16 there.)

/** Characters that have got a class of combination or a decomposition since Unicode 9, and what they are composed of. */
const combining = [
  String.raw`\u07fd\u0897-\u089f\u08ca-\u08d3\u09fe\u0c3c\u0d3b-\u0d3c\u0eba\u1715\u1abf-\u1aeb\u1df6-\u1dfa\u32ff`,
  String.raw`\ua7f1-\ua7f4\ua82c\uab69\u{105c9}\u{105d2}\u{105da}\u{105e4}\u{10781}-\u{107ba}\u{10d24}-\u{10d27}`,
  String.raw`\u{10d69}-\u{10d6d}\u{10eab}-\u{10eac}\u{10efa}-\u{10efb}\u{10efd}-\u{10eff}\u{10f46}-\u{10f50}`,
  String.raw`\u{10f82}-\u{10f85}\u{11070}\u{1133b}\u{11382}-\u{11385}\u{1138b}-\u{11391}\u{113b8}\u{113bb}\u{113c2}-\u{113c9}`,
  String.raw`\u{113ce}-\u{113d0}\u{1145e}\u{11839}-\u{1183a}\u{11930}\u{11935}\u{11938}\u{1193d}-\u{1193e}\u{11943}\u{119e0}`,
  String.raw`\u{11a34}\u{11a47}\u{11a99}\u{11d42}\u{11d44}-\u{11d45}\u{11d97}\u{11f41}-\u{11f42}\u{1611e}-\u{16129}\u{1612f}`,
  String.raw`\u{16d63}\u{16d67}-\u{16d6a}\u{16ff0}-\u{16ff1}\u{1ccd6}-\u{1ccf9}\u{1e030}-\u{1e08f}\u{1e130}-\u{1e136}`,
  String.raw`\u{1e2ae}\u{1e2ec}-\u{1e2ef}\u{1e4ec}-\u{1e4ef}\u{1e5ee}-\u{1e5ef}\u{1e6e3}\u{1e6e6}\u{1e6ee}-\u{1e6ef}\u{1e6f5}`,
  String.raw`\u{1f16c}\u{1fbf0}-\u{1fbf9}`,
].join('')

/** Punctuation since Unicode 8. */
const punctuation = [
  String.raw`\u061d\u09fd\u0a76\u0c77\u0c84\u1b4e-\u1b4f\u1b7d-\u1b7f\u2e43-\u2e4f\u2e52-\u2e5d\u{10d6e}\u{10ead}\u{10ed0}`,
  String.raw`\u{10f55}-\u{10f59}\u{10f86}-\u{10f89}\u{113d4}-\u{113d8}\u{1144b}-\u{1144f}\u{1145a}-\u{1145d}`,
  String.raw`\u{11660}-\u{1166c}\u{116b9}\u{1183b}\u{11944}-\u{11946}\u{119e2}\u{11a3f}-\u{11a46}\u{11a9a}-\u{11a9c}`,
  String.raw`\u{11a9e}-\u{11aa2}\u{11b00}-\u{11b09}\u{11be1}\u{11c41}-\u{11c45}\u{11c70}-\u{11c71}\u{11ef7}-\u{11ef8}`,
  String.raw`\u{11f43}-\u{11f4f}\u{11fff}\u{12ff1}-\u{12ff2}\u{16d6d}-\u{16d6f}\u{16e97}-\u{16e9a}\u{16fe2}\u{1e5ff}`,
  String.raw`\u{1e95e}-\u{1e95f}`,
].join('')

const newCombining = new RegExp(`([${combining}]+)`, 'u')

/** A character of punctuation, for the Punctuation step. U+166D and U+111C9 are none any more. */
export const oldPunctuation = new RegExp(`(?![${punctuation}])[\\p{P}$+<=>^\`|~\\u166d\\u{111c9}]`, 'gu')

/** `text.normalize(form)` by the tables of Unicode 9. */
export function normalizeOld(text: string, form: 'NFC' | 'NFD' | 'NFKC' | 'NFKD'): string {
  const normalized = text.normalize(form)
  if (normalized === text || !newCombining.test(text)) return normalized
  // A character without properties is a border: nothing moves over it, and nothing is composed with it.
  return text
    .split(newCombining)
    .map((part, index) => (index % 2 === 0 ? part.normalize(form) : part))
    .join('')
}
