#!/usr/bin/env python3
"""Compares Parley's ids with those of Hugging Face's tokenizers on generated texts of all scripts; what differs is printed.

Needs what make_tokenizer_goldens.py needs, and the compiled server (dist). Run it from anywhere:

    python test/models/compare_tokenizers.py [number of texts, default 12000] [seed, default 1] [folder with tokenizers]
"""

import json, random, subprocess, sys, tempfile
from pathlib import Path

arguments, sys.argv = sys.argv[1:], sys.argv[:1] + sys.argv[3:]
import make_tokenizer_goldens as goldens
from tokenizers import Tokenizer

COUNT = int(arguments[0]) if arguments else 12000
RANDOM = random.Random(int(arguments[1]) if len(arguments) > 1 else 1)

# Ranges of code points that are written, combine, are normalized or are not there.
BLOCKS = [(0x20, 0x7f)] * 6 + [(0x0, 0x20), (0x80, 0x100), (0x100, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600), (0x600, 0x700), (0x900, 0x980), (0x980, 0xa00), (0xb80, 0xc00), (0xe00, 0xe80), (0xe80, 0xf00), (0xf00, 0x1000), (0x1000, 0x10a0), (0x1100, 0x1200), (0x1680, 0x16a0), (0x1780, 0x1800), (0x1e00, 0x2000), (0x2000, 0x2070), (0x2070, 0x20d0), (0x20d0, 0x2100), (0x2100, 0x2190), (0x2460, 0x2500), (0x2600, 0x27c0), (0x3000, 0x3040), (0x3040, 0x3100), (0x3130, 0x3190), (0x3200, 0x3400), (0x4e00, 0x4f00), (0xac00, 0xad00), (0xd7b0, 0xd800), (0xe000, 0xe010), (0xf900, 0xfb00), (0xfb00, 0xfb50), (0xfe00, 0xfe30), (0xfe30, 0xfe70), (0xff00, 0xfff0), (0xfff0, 0x10000), (0x10300, 0x10340), (0x11000, 0x11100), (0x1d100, 0x1d200), (0x1d400, 0x1d500), (0x1f1e6, 0x1f200), (0x1f300, 0x1f650), (0x1f900, 0x1fa00), (0x20000, 0x20020), (0x2f800, 0x2f820), (0xe0020, 0xe0080), (0x10fff0, 0x110000)]
WORDS = ' '.join(text for text in goldens.TEXTS if len(text) < 200).split(' ')
SPACES = [' ', '\n', '\t', '\r', '\x0b', '\x1c', '\x85', '\u2028', '\u200b', '\ufeff']

CHECK = """
import { readFileSync } from 'node:fs'
const [dist, folder, file] = process.argv.slice(1)
const { loadTokenizer } = await import(`${dist}/models/tokenizer.js`)
const { texts, special, plain } = JSON.parse(readFileSync(file, 'utf8'))
const tokenizer = await loadTokenizer(folder)
let differ = 0
for (const [i, text] of texts.entries()) {
  const found = [tokenizer.encode(text, { allowSpecial: true }), tokenizer.encode(text, { addSpecialTokens: false })]
  if (`${found[0]}` === `${special[i]}` && `${found[1]}` === `${plain[i]}`) continue
  if (differ++ < 5) console.log(JSON.stringify([text, ...found, special[i], plain[i]]))
}
console.log(`${folder}: ${differ} of ${texts.length} texts differ`)
"""


def character():
    return chr(RANDOM.randrange(*RANDOM.choice(BLOCKS)))


def part():
    kind = RANDOM.random()
    if kind < 0.35:
        return RANDOM.choice(WORDS)
    if kind < 0.55:
        return ''.join(character() for _ in range(RANDOM.randrange(1, 6)))
    if kind < 0.65:
        return character() * RANDOM.randrange(1, 12)
    if kind < 0.75:
        return RANDOM.choice(SPACES) * RANDOM.randrange(1, 5)
    if kind < 0.90:
        return ''.join(RANDOM.choice('abcdefghijklmnopqrstuvwxyzABC') for _ in range(RANDOM.randrange(1, 9)))
    if kind < 0.95:
        return str(RANDOM.randrange(10 ** RANDOM.randrange(1, 9)))
    block = RANDOM.choice(BLOCKS)
    return ''.join(chr(RANDOM.randrange(*block)) for _ in range(RANDOM.randrange(3, 20)))


def check(folder, tokenizer, texts, scratch):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids = lambda one: [encoding.ids for encoding in one.encode_batch(texts)]
    file = scratch / 'texts.json'
    file.write_text(json.dumps({'texts': texts, 'special': ids(tokenizer), 'plain': ids(goldens.plain_of(tokenizer))}))
    subprocess.run(['node', '--input-type=module', '-e', CHECK, str(goldens.ROOT / 'dist'), str(folder), str(file)], check=True)


def main():
    texts = [goldens.well_formed(RANDOM.choice(['', ' ']).join(part() for _ in range(RANDOM.randrange(1, 20)))) for _ in range(COUNT)]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for folder in sorted(goldens.FIXTURES.iterdir()):
            if (folder / 'tokenizer.json').exists():
                check(folder, Tokenizer.from_file(str(folder / 'tokenizer.json')), texts, scratch)
        for real, (files, config, load) in goldens.REALS.items():
            if not all((goldens.REAL / path).exists() for path in files.values()):
                continue
            folder = scratch / real
            folder.mkdir()
            for target, source in files.items():
                (folder / target).write_bytes((goldens.REAL / source).read_bytes())
            (folder / 'tokenizer_config.json').write_text(json.dumps(config))
            check(folder, load(), texts, scratch)


if __name__ == '__main__':
    main()
