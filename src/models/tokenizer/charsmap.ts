// SentencePiece's table of replacements ("precompiled charsmap"): a double-array trie (Darts) over UTF-8, whose values are places in a
// list of texts that end with a zero byte. T5 and mT5 normalize with it.

/** Made when it is needed, which is seldom: ICU takes 20 ms to begin. */
let segmenter: Intl.Segmenter | null = null

/** Bytes of the trie, which come first; NaN where there cannot be one. */
function trieBytesOf(charsmap: Uint8Array): number {
  if (charsmap.length < 8) return Number.NaN
  const bytes = new DataView(charsmap.buffer, charsmap.byteOffset).getUint32(0, true)
  return bytes >= 4 && bytes % 4 === 0 && bytes <= charsmap.length - 4 ? bytes : Number.NaN
}

export function isCharsmap(charsmap: Uint8Array): boolean {
  return !Number.isNaN(trieBytesOf(charsmap))
}

/** @param charsmap u32 size of the trie in bytes, the trie's u32 units, the texts; all little-endian */
export function makeCharsmap(charsmap: Uint8Array): (text: string) => string {
  const trieBytes = trieBytesOf(charsmap)
  const view = new DataView(charsmap.buffer, charsmap.byteOffset, charsmap.byteLength)
  const units = new Uint32Array(trieBytes / 4)
  for (let i = 0; i < units.length; i++) units[i] = view.getUint32(4 + 4 * i, true)
  const texts = charsmap.subarray(4 + trieBytes)

  /** What replaces the text's shortest prefix that the trie has, and with it the whole text; null: the trie has none. */
  function search(text: string): string | null {
    let node = offsetOf(units[0] ?? 0)
    for (const byte of Buffer.from(text)) {
      if (byte === 0) return null
      node ^= byte
      const unit = units[node] ?? 0
      if ((unit & 0x800000ff) >>> 0 !== byte) return null
      node ^= offsetOf(unit)
      if ((unit & 0x100) !== 0) {
        const start = (units[node] ?? 0) & 0x7fffffff
        const end = texts.indexOf(0, start)
        return Buffer.from(texts.subarray(start, end < 0 ? texts.length : end)).toString()
      }
    }
    return null
  }

  const ofCharacter = new Map<string, string | null>()
  function replaceCharacter(char: string): string {
    let found = ofCharacter.get(char)
    if (found === undefined) {
      found = search(char)
      ofCharacter.set(char, found)
    }
    return found ?? char
  }

  /** Hugging Face's rule: a short grapheme is looked up whole, else each of its characters is. */
  function replaceGrapheme(grapheme: string): string {
    const whole = Buffer.byteLength(grapheme) < 6 ? search(grapheme) : null
    return whole ?? replaceCharacters(grapheme)
  }

  /** units that are characters and stay as they are: 1, once it is known */
  const kept = new Uint8Array(0x10000)
  function replaceCharacters(text: string): string {
    let out = ''
    let done = 0 // how much of the text stands in `out`
    for (let at = 0; at < text.length; ) {
      const unit = text.charCodeAt(at)
      if (kept[unit] === 1) {
        at++
        continue
      }
      const char = String.fromCodePoint(text.codePointAt(at) as number)
      const replaced = replaceCharacter(char)
      if (replaced !== char) {
        out += text.slice(done, at) + replaced
        done = at + char.length
      } else if (char.length === 1) {
        kept[unit] = 1
      }
      at += char.length
    }
    return done === 0 ? text : out + text.slice(done)
  }

  function replaceStretch(stretch: string): string {
    if (!joins.test(stretch)) return replaceCharacters(stretch)
    let out = ''
    for (const grapheme of graphemes(stretch)) out += replaceGrapheme(grapheme)
    return out
  }

  return (text) => {
    let out = ''
    // Where two simple characters meet is a border of graphemes: stretches of simple characters and of others take turns.
    for (let at = 0; at < text.length; ) {
      let end = at
      while (end < text.length && isSimple(text.charCodeAt(end))) end++
      // The last one may begin a grapheme.
      if (end < text.length && end > at) end--
      out += replaceCharacters(text.slice(at, end))
      at = end
      if (at === text.length) break
      end = at + 1
      while (end < text.length && !(isSimple(text.charCodeAt(end - 1)) && isSimple(text.charCodeAt(end)))) end++
      out += replaceStretch(text.slice(at, end))
      at = end
    }
    return out
  }
}

/**
 * What every grapheme of several characters has that is short enough to be looked up whole: a character of one or two bytes in UTF-8 that
 * takes another to it or is taken, or one that takes what follows. (Of the last kind are format characters and letters of Indic scripts.)
 */
const joins =
  /\r|[\0-\u07ff][\p{Grapheme_Extend}\p{Mc}\p{Emoji_Modifier}\p{Join_Control}\u0e33\u0eb3]|(?=[\u0300-\u07ff])[\p{Grapheme_Extend}\p{Mc}]|(?!\p{Join_Control})[\p{Cf}\u0d4e\u{11000}-\u{11fff}]/u

/** UTF-16 units that are segmented at once: the segmenter takes time with the square of its text's length. */
const WINDOW = 128

/** Borders of graphemes do not depend on what lies before a border, so a window may begin at any. */
function* graphemes(text: string): Generator<string> {
  segmenter ??= new Intl.Segmenter('und', { granularity: 'grapheme' })
  let start = 0
  for (let size = WINDOW; start < text.length; ) {
    const window = text.slice(start, start + size)
    const last = start + size >= text.length
    let taken = 0
    for (const { segment, index } of segmenter.segment(window)) {
      // What the window's end cuts off may be part of a grapheme.
      if (!last && index + segment.length === window.length) break
      yield segment
      taken = index + segment.length
    }
    start += taken
    size = taken > 0 ? WINDOW : 2 * size
  }
}

/** Darts: how far a unit's children are. */
function offsetOf(unit: number): number {
  return ((unit >>> 10) << ((unit & 0x200) >>> 6)) >>> 0
}

/** UTF-16 units that are characters by themselves and never join one another to a grapheme: most of what is written. */
function isSimple(unit: number): boolean {
  return (
    (unit < 0x300 && unit !== 0x0d) ||
    (unit >= 0x370 && unit < 0x483) || // Greek, Cyrillic
    (unit >= 0x48a && unit < 0x530) ||
    (unit >= 0x620 && unit < 0x64b) || // Arabic letters
    (unit >= 0x2010 && unit < 0x2028) || // punctuation
    (unit >= 0x3001 && unit < 0x302a) ||
    (unit >= 0x3041 && unit < 0x3097) || // Kana
    (unit >= 0x309b && unit < 0x3100) ||
    (unit >= 0x4e00 && unit < 0xa000) || // Han
    (unit >= 0xac00 && unit < 0xd7a4) || // Hangul syllables
    (unit >= 0xff01 && unit < 0xff9e) // full-width forms
  )
}
