#!/usr/bin/env python3
"""Token ids of Hugging Face's tokenizers on hard texts, for small tokenizers made here and for real ones.

Needs transformers 5.18, tokenizers 0.23, sentencepiece 0.2 and protobuf. Run it from anywhere:

    python test/models/make_tokenizer_goldens.py [folder with tokenizers, default ../shared/data/tokenizers]

It writes test/fixtures/tokenizers/* (one folder a kind, trained on a few hundred words) and test/models/goldens/tokenizers/*. The real
tokenizers are not part of the repository: where they are missing their goldens stay as they are, and the tests skip them.

For each text: `special` are the ids with special tokens found in the text and put around it; `plain` those when their names are text;
`decoded` is the text that the ids of `special` make. Long results are stored as a digest.
"""

import base64, hashlib, io, json, sys
from pathlib import Path

import sentencepiece
import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
FIXTURES = ROOT / 'test/fixtures/tokenizers'
GOLDENS = HERE / 'goldens/tokenizers'
REAL = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / 'shared/data/tokenizers'

# ---- Texts

TEXTS = [
    '', ' ', '  ', '   ', '\n', '\n\n', '\t', '\r\n', '\r', ' \n ', '\u00a0', '\u3000', '\u0085', '\u2028a\u2029', '\ufeff', '\ufeffabc', 'a', ' a', 'a ',
    'Hello, world!', ' Hello  world ', 'The quick brown fox jumps over the lazy dog.', "I'm it's  two\n\n x ²½Ⅷ 12a  ",
    "don't DON'T I'LL we've THEY'RE he'd 'tis 's '’s", "it's IT'S it'ſ 'K \u212aelvin ſo", 'a\tb\t\tc\n\td', 'line\r\nline\r\n\r\nline\rline\n\n\nend',
    'x' + ' ' * 7 + 'y' + ' ' * 24 + 'z' + ' ' * 40, '    if x:\n        return  y\n\t\t# done\n', '\n' * 9 + 'a' + '\n \n \n', ' \t \t\n\t ', '0', '7 12 123 1234 12345 1234567890', '3.14159e-10 1,000,000 $5 50% #1 №5',
    '١٢٣٤ ४५६ ๗๘ 五六 ½ ² Ⅷ ①', 'def f(x):\n    return {"a": [1, 2, None], \'b\': x**2 // 3}  # comment\n', '<div class="a">&nbsp;</div>',
    'https://example.org/a/b?c=d&e=%20f#g user@example.com', '/* C */ int main() { return a->b << 2; }', '!!! ??? ... --- === ~~~ $$$', '(a)[b]{c}<d>|e|\\f/', 'a.b,c;d:e!f?g', '…。，、।۔،!?',
    'naïve café Ångström', 'nai\u0308ve cafe\u0301 A\u030angstro\u0308m', 'e\u0301\u0301\u0301 o\u0327\u0323', 'a\u0300\u0316\u0327\u031b\u0345 \u0301x', 'ﬁ ﬂ ﬃ ſt ⅳ ™ ℡ ㌔ ①② ａｂｃ １２３', 'ﬁ\u0301 ½\u0301 Å\u030a',
    'ß ẞ İ ı ǅ Σίσυφος ΣΑΣ', 'Привет, мир! Ёлка ёлка', 'Γειά σου Κόσμε ά', 'שלום עולם שָׁלוֹם', 'مرحبا بالعالم، كيف الحال؟ السَّلَامُ', 'لا إله \u0640\u0640 ـَـ',
    'नमस्ते दुनिया क्षत्रिय', 'বাংলা ভাষা', 'தமிழ் மொழி', 'ภาษาไทยสวัสดีครับ ทำงาน', 'ພາສາລາວ', 'မြန်မာဘာသာ', 'ខ្មែរ', 'አማርኛ ቋንቋ', '한국어 텍스트 안녕하세요', '\u1112\u1161\u11ab\u1100\u116e\u11a8 ㅎㅏㄴ', '가\u11a8 \u1100가 가\u1161',
    '你好，世界！我们在这里。', '漢字かな交じり文、カタカナ', 'か\u3099は\u309a ガパ', 'ｶﾞｷﾞ ﾊﾟ', '㐀 𠀀 𪜶 龥 \uf900', 'Tiếng Việt Việt',
    '😀', '😀😃 😄', '👍🏽 👩🏾‍🚀', '👨‍👩‍👧‍👦 family', '🇩🇪🇫🇷🇯🇵 🏳️‍🌈 🏴‍☠️', '❤️ ☺︎ ©️ ™️ 1️⃣', 'a\u200db \u200d\u200d 👩\u200d', '\u200b\u200c\u200d\u2060', 'soft\u00adhyphen', '\u202ertl\u202c \u200f\u200e',
    '\x00', 'a\x00b', '\x01\x02\x07\x08\x0b\x0c\x1b[0m\x7f', '\x1c\x1d\x1e\x1f', '\x80\x9f', '\ufffd', '\ufffe\uffff', '\ue000\uf8ff', '\U0010ffff', '𝒳𝓎𝔃 𝟘𝟙𝟚', '𐍈𐌰 𓀀 𝄞', '\ud83d', 'a\udc00b', '\ud83d\ud83d\ude00\ude00',
    '\u0378 \u0e5c \U000e0041', '᠎ \u1680 \u2000\u2001\u2009\u202f\u205f', '▁', '▁▁ a▁b ▁c', ' ▁ ', 'Ġ Ċ Ã© âĢĻ', '<0x0A> <0xE2>', 'zzzzzzzzzzzzzzzzzzzzzzzzzzzzzz', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa',
    '=' * 77, '- ' * 40, 'ThisIsCamelCaseAndSNAKE_CASE_and_snake_case', 'Donaudampfschifffahrtsgesellschaftskapitän', 'supercalifragilisticexpialidocious antidisestablishmentarianism', 'aA bB Cc 1a a1 _a a_ -a a-', "''' \"\"\" ``` '' \"\"",
    '<|endoftext|>', 'a<|endoftext|>b', ' <|endoftext|> <|endoftext|>', '<|endoftext|', '<|endoftext|><|padding|>', '<s>', 'a<s>b</s> <unk><pad>', '</s></s> </s>x', '<unk> <pad> <bos><eos>', '<extra_id_0> <extra_id_99>x<extra_id_1>', '<|im_start|>user\nhi<|im_end|>\n', '<|user|>\nhi<|end|>\n<|assistant|>\n', '[INST] hi [/INST]', '<|begin_of_text|>x<|eot_id|>', '<mask> a <mask>b <mask>', 'word WORD xword wordx word. 1word', '<start_of_turn>user\nhi<end_of_turn>',
    '<<s>s> <|endof<|endoftext|>text|>', 'King king kings KING', 'once upon a time there was a king who had three daughters', ' the the  the   the', '日本語とEnglishを混ぜた文。12個。', 'mixed עברית and العربية 123 text', 'tab\there  and\u00a0nbsp and\u2003em', 'x' * 63 + ' ' + 'y' * 64 + ' ' + 'z' * 65, '１２３４５ ⅠⅡⅢ ¼¾', 'a\u0308\u0323b \u1e69 \u0073\u0323\u0307 \u0073\u0307\u0323', '\u0958 \u0344 \u2126 \u212b \uac00\u0308', 'q̣̇ q\u0307\u0323', 'ا\u0653 \u06d5\u0654',    # What Unicode got after Hugging Face's tables were made, and scores whose sums differ by rounding.
    'R\u0328\u031b\u09fe ໹\u0338\u1abf\u0487 \u0e38\u07fd\u08fd \U000105d2\u0307 \U00011382\U000113c9', '\u061d\u166d\u2e52.\u1b4e', '\ufe63' * 7, '-' * 7, 'x² ⁴ ① ½ [START_²] [START_⁴]',
]

# Texts of 20,000 to 100,000 characters: [part, times].
LONG = [['a', 100000], ['abcdefghij', 10000], ['你好世界', 20000], [' ', 30000], ['\n', 20000], ['the king ', 5000], ['👨‍👩‍👧‍👦', 3000], ['e\u0301', 20000], ['0123456789', 5000], ['\t x', 7000], ['!?', 20000], ['ก็ำ', 8000], ['नि', 8000], ['\x01', 20000]]


def well_formed(text):
    return text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


# ---- Small tokenizers

CORPUS = [
    'once upon a time there was a king who had three daughters, and the youngest was so beautiful that the sun itself wondered.',
    "The king's daughter didn't know; she'd gone, they'll say, we're lost, I'm here, you've won.  Two  spaces,   three.",
    'def f(x):\n    return x + 1\n\n\nfor i in range(100):\n\tprint(i, 2024, 12345)\n', 'naïve café über Ångström façade', 'Привет мир, как дела', 'مرحبا بالعالم', '你好世界 我们在这里 日本語 かな カナ 한국어 안녕', '😀😃👍🏽 👨‍👩‍👧‍👦 🇩🇪', '1 22 333 4444 55555 3.14 1,000', 'नमस्ते दुनिया', 'ภาษาไทย', 'Hello, world! Hello there. The end. THE END?',
] * 4

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r'\p{N}{1,3}', r'\p{N}')
O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
BLOOM = ' ?[^(\\s|[.,!?…。，、।۔،])]+'
GALACTICA = r'(\[START_\w+\]|\[END_\w+\])|[0-9]|[a-z]+'


def split(pattern, behavior='isolated', invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(pre_tokenizer, normalizer=None, size=420, special=('<|endoftext|>',), **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return tokenizer


def make_gpt2(folder):
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), special=[])
    vocab = json.loads(tokenizer.to_str())['model']
    ids = {**vocab['vocab'], '<|endoftext|>': len(vocab['vocab'])}
    (folder / 'vocab.json').write_text(json.dumps(ids, ensure_ascii=False))
    (folder / 'merges.txt').write_text('#version: 0.2\n' + ''.join(' '.join(m) + '\n' for m in vocab['merges']))
    return transformers.GPT2Tokenizer(vocab=str(folder / 'vocab.json'), merges=str(folder / 'merges.txt'))._tokenizer


def make_opt(folder):
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), special=['<s>', '<pad>', '</s>', '<unk>'])
    tokenizer.add_special_tokens([AddedToken('<mask>', lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(('</s>', 2), ('<s>', 0))
    return tokenizer


def make_llama3(folder):
    tokenizer = byte_level(pre_tokenizers.Sequence([split(LLAMA3), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), special=[])
    # A word that no merges lead to: only ignore_merges finds it.
    state = json.loads(tokenizer.to_str())
    state['model']['vocab']['Ġbeautiful'] = len(state['model']['vocab'])
    state['model']['ignore_merges'] = True
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens(['<|begin_of_text|>', '<|eot_id|>'])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(single='<|begin_of_text|> $A', special_tokens=[('<|begin_of_text|>', tokenizer.token_to_id('<|begin_of_text|>'))])])
    return tokenizer


def make_qwen(folder):
    tokenizer = byte_level(pre_tokenizers.Sequence([split(QWEN), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), normalizers.NFC())
    tokenizer.add_special_tokens(['<|im_start|>', '<|im_end|>'])
    return tokenizer


def make_o200k(folder):
    return byte_level(pre_tokenizers.Sequence([split(O200K), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def make_cl100k(folder):
    return byte_level(pre_tokenizers.Sequence([split(CL100K, 'removed', True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def make_bloom(folder):
    return byte_level(pre_tokenizers.Sequence([split(BLOOM), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), special=['<unk>', '<s>', '</s>', '<pad>'])


def make_falcon(folder):
    return byte_level(pre_tokenizers.Sequence([pre_tokenizers.Punctuation('contiguous'), pre_tokenizers.ByteLevel(add_prefix_space=False), pre_tokenizers.Digits(individual_digits=False), split('[0-9][0-9][0-9]')]))


def make_neox(folder):
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC(), special=['<|endoftext|>', '<|padding|>'])
    tokenizer.add_tokens([AddedToken(' ' * n, normalized=True) for n in range(24, 1, -1)])
    tokenizer.add_tokens([AddedToken('word', single_word=True, normalized=True), AddedToken('s\u0323\u0307', normalized=True)])
    return tokenizer


def make_galactica(folder):
    steps = [pre_tokenizers.Split('SPL1T-TH1S-Pl3A5E', 'removed'), pre_tokenizers.Digits(individual_digits=True), split(GALACTICA), pre_tokenizers.Split('\n', 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    return byte_level(pre_tokenizers.Sequence(steps), normalizers.NFKC(), special=['<s>', '<pad>', '</s>', '<unk>'])


def make_splits(folder):
    """Every behavior of a split, and white space that goes."""
    steps = [pre_tokenizers.WhitespaceSplit(), split('[aeiou]', 'merged_with_previous'), split('[st]+', 'merged_with_next'), split(r'\p{P}', 'contiguous'), split('[xyz]', 'removed'), pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)]
    return byte_level(pre_tokenizers.Sequence(steps), normalizers.Sequence([normalizers.Lowercase(), normalizers.NFD(), normalizers.Strip(), normalizers.Replace(Regex('q+'), 'k')]))


def spm_bpe(**kwargs):
    return train_sentencepiece(model_type='bpe', byte_fallback=True, character_coverage=0.98, **kwargs)


def train_sentencepiece(size=500, **kwargs):
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter([line for text in CORPUS for line in text.split('\n') if line]), model_writer=out, vocab_size=size, hard_vocab_limit=False, num_threads=1, minloglevel=2, **kwargs)
    return out.getvalue()


def llama_json(folder):
    """A Llama tokenizer.json, from a SentencePiece model that is not kept."""
    (folder / 'tokenizer.model').write_bytes(spm_bpe(normalization_rule_name='identity', remove_extra_whitespaces=False, user_defined_symbols=['▁▁', '▁▁▁▁']))
    tokenizer = transformers.LlamaTokenizer.from_pretrained(str(folder))._tokenizer
    (folder / 'tokenizer.model').unlink()
    state = json.loads(tokenizer.to_str())
    return state


def make_llama_legacy(folder):
    state = llama_json(folder)
    state['pre_tokenizer'] = None
    state['normalizer'] = {'type': 'Sequence', 'normalizers': [{'type': 'Prepend', 'prepend': '▁'}, {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '▁'}]}
    state['added_tokens'] = [token for token in state['added_tokens'] if '▁' not in token['content']]
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.add_special_tokens([AddedToken('<|user|>', rstrip=True, special=True), AddedToken('<|end|>', rstrip=True, special=True), AddedToken('<|assistant|>', rstrip=True, special=True)])
    tokenizer.add_tokens([AddedToken('word', normalized=True)])
    return tokenizer


def make_llama_first(folder):
    return Tokenizer.from_str(json.dumps(llama_json(folder)))


def make_gemma(folder):
    state = llama_json(folder)
    state['normalizer'] = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '▁'}
    state['pre_tokenizer'] = {'type': 'Split', 'pattern': {'String': ' '}, 'behavior': 'MergedWithPrevious', 'invert': False}
    state['decoder'] = {'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': '▁'}, 'content': ' '}, {'type': 'ByteFallback'}, {'type': 'Fuse'}]}
    return Tokenizer.from_str(json.dumps(state))


def make_llama_unk(folder):
    """No byte fallback: unknown characters in a row are one token."""
    state = llama_json(folder)
    state['model']['byte_fallback'] = False
    return Tokenizer.from_str(json.dumps(state))


def small_charsmap(**kwargs):
    """The parts of SentencePiece's nmt_nfkc that the texts touch are too large to keep; these rules are of the same kinds."""
    rules = ['%X\t%X' % pair for pair in [(0x09, 0x20), (0x0a, 0x20), (0x0d, 0x20), (0xa0, 0x20), (0x3000, 0x20), (0xb2, 0x32), (0x2460, 0x31), (0xff41, 0x61), (0x2122, 0x54)]]
    rules += ['1\t', '200B\t', 'FB01\t66 69', 'BD\t31 2044 32', '65 301\tE9', '41 30A\tC5', '304B 3099\t304C', '1100 1161\tAC00', '1100 1161 11A8\tAC01', '928 93C\t929', '61 308 323\t61 323 308', '2026\t2E 2E 2E']
    path = FIXTURES / 'rules.tsv'
    path.write_text('\n'.join(rules) + '\n')
    model = train_sentencepiece(model_type='unigram', normalization_rule_tsv=str(path), character_coverage=0.98, **kwargs)
    path.unlink()
    return model


def charsmap_of(model):
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model)
    return proto


def unigram(model, extra=0, unk_id=None, **kwargs):
    proto = charsmap_of(model)
    vocab = [(piece.piece, piece.score) for piece in proto.pieces] + [(f'<extra_id_{i}>', 0.0) for i in range(extra - 1, -1, -1)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=proto.trainer_spec.unk_id, **kwargs))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(' {2,}'), '▁')])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='always')
    tokenizer.decoder = decoders.Metaspace(prepend_scheme='always')
    return tokenizer


def make_t5(folder):
    tokenizer = unigram(small_charsmap(), 100)
    tokenizer.add_special_tokens(['<unk>', '<s>', '</s>', *[f'<extra_id_{i}>' for i in range(100)]])
    tokenizer.post_processor = processors.TemplateProcessing(single='$A </s>', special_tokens=[('</s>', tokenizer.token_to_id('</s>'))])
    return tokenizer


def make_unigram_bytes(folder):
    model = train_sentencepiece(model_type='unigram', byte_fallback=True, size=600, normalization_rule_name='nfkc', character_coverage=0.98)
    tokenizer = unigram(model, byte_fallback=True)
    tokenizer.normalizer = normalizers.Replace(' ', '▁')
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def make_spm_llama(folder):
    (folder / 'tokenizer.model').write_bytes(spm_bpe(normalization_rule_name='identity', remove_extra_whitespaces=False, control_symbols=['[INST]', '[/INST]']))
    return transformers.LlamaTokenizer.from_pretrained(str(folder), add_bos_token=True)._tokenizer


def make_spm_t5(folder):
    model = small_charsmap(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    (folder / 'spiece.model').write_bytes(model)
    (folder / 'config.json').write_text('{"model_type": "t5"}\n')
    return transformers.T5Tokenizer.from_pretrained(str(folder))._tokenizer


SMALL = {name.removeprefix('make_').replace('_', '-'): make for name, make in globals().items() if name.startswith('make_')}


# ---- Real tokenizers: the files of the folder to load, what to write into tokenizer_config.json, and the reference.

def from_json(name, file='tokenizer.json', **config):
    return {'tokenizer.json': f'{name}/{file}'}, config, lambda: Tokenizer.from_file(str(REAL / name / file))


def from_gpt2(files, config, **kwargs):
    def load():
        vocab, merges, *added = [str(REAL / path) for path in files.values()]
        tokenizer = transformers.GPT2Tokenizer(vocab=vocab, merges=merges, **kwargs)._tokenizer
        for path in added:
            ids = json.loads(Path(path).read_text())
            tokenizer.add_tokens([AddedToken(token, normalized=True) for token in sorted(ids, key=ids.get)])
        if config.get('add_bos_token'):
            tokenizer.post_processor = processors.TemplateProcessing(single='</s> $A', special_tokens=[('</s>', 2)])
        return tokenizer
    return files, config, load


def from_sentencepiece(name):
    def load():
        return transformers.LlamaTokenizer.from_pretrained(str(REAL / name), add_bos_token=True)._tokenizer
    return {'tokenizer.model': f'{name}/tokenizer.model'}, {}, load


def from_tiktoken():
    def load():
        ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in (REAL / 'qwen/qwen.tiktoken').read_text().splitlines()}
        chars = {byte: char for byte, char in transformers.convert_slow_tokenizer.bytes_to_unicode().items()}
        text = lambda token: ''.join(chars[byte] for byte in token)
        merges = []
        for token, rank in ranks.items():
            local = [(ranks[token[:i]], ranks[token[i:]], token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
            merges += [(rank, left, right) for _, _, left, right in sorted(local)]
        merges.sort(key=lambda merge: merge[0])
        tokenizer = Tokenizer(models.BPE({text(token): rank for token, rank in ranks.items()}, [(text(left), text(right)) for _, left, right in merges]))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split(QWEN), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(['<|endoftext|>', '<|im_start|>', '<|im_end|>', *[f'<|extra_{i}|>' for i in range(205)]])
        return tokenizer
    return {'qwen.tiktoken': 'qwen/qwen.tiktoken'}, {}, load


GPT2_FILES = {'encoder.json': 'gpt2/encoder.json', 'vocab.bpe': 'gpt2/vocab.bpe'}
REALS = {
    'gpt2': from_gpt2(GPT2_FILES, {}),
    'gpt-j': from_gpt2({'vocab.json': 'gpt2/encoder.json', 'merges.txt': 'gpt2/vocab.bpe', 'added_tokens.json': 'gpt-j/added_tokens.json'}, {}),
    'opt': from_gpt2({'vocab.json': 'opt/vocab.json', 'merges.txt': 'opt/merges.txt'}, {'bos_token': '</s>', 'eos_token': '</s>', 'unk_token': '</s>', 'pad_token': '<pad>', 'add_bos_token': True}, bos_token='</s>', eos_token='</s>', unk_token='</s>', pad_token='<pad>'),
    'gpt-neox-20b': from_json('gpt-neox-20b', '20B_tokenizer.json'),
    'phi-2': from_json('phi-2'),
    'phi-3-mini': from_json('phi-3-mini'),
    't5-small': from_json('t5-small'),
    'mistral-v1': from_sentencepiece('mistral-v1'),
    'mistral-v3': from_sentencepiece('mistral-v3'),
    'qwen': from_tiktoken(),
}


# ---- Goldens

def plain_of(tokenizer):
    """The same tokenizer, in which no text leads to a special token."""
    state = json.loads(tokenizer.to_str())
    special = {token['content'] for token in state['added_tokens'] if token['special']}
    for token in state['added_tokens']:
        if token['special']:
            token['content'] = '\U000f0000' + token['content']  # ids stay where they are
    state['post_processor'] = None
    model = state['model']
    rename = lambda token: '\U000f0000' + token if token in special else token
    if model['type'] == 'BPE':
        model['vocab'] = {rename(token): id for token, id in model['vocab'].items()}
        model['unk_token'] = model['unk_token'] and rename(model['unk_token'])
        model['merges'] = [pair for pair in model['merges'] if not special & {*pair, ''.join(pair)}]
    else:
        model['vocab'] = [[rename(token), score] for token, score in model['vocab']]
    return Tokenizer.from_str(json.dumps(state))


def digest(ids):
    return hashlib.sha256(b''.join(id.to_bytes(4, 'little') for id in ids)).hexdigest()[:16]


def record(name, tokenizer, **more):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    plain = plain_of(tokenizer)
    rows, long = [], []
    for text in TEXTS:
        ids = tokenizer.encode(well_formed(text)).ids
        plain_ids = plain.encode(well_formed(text)).ids
        row = {'special': ids, 'plain': plain_ids}
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        if decoded != well_formed(text):
            row['decoded'] = decoded
        rows.append(row)
    for part, times in LONG:
        ids = plain.encode(well_formed(part * times)).ids
        long.append([len(ids), digest(ids)])
    value = {'tokenizers': tokenizers.__version__, 'transformers': transformers.__version__, **more, 'size': tokenizer.get_vocab_size(), 'long': long, 'rows': rows}
    head = json.dumps({key: item for key, item in value.items() if key != 'rows'}, ensure_ascii=True)[:-1]
    lines = ',\n'.join(json.dumps(row, separators=(',', ':')) for row in rows)
    Path(f'{GOLDENS / name}.json').write_text(f'{head}, "rows": [\n{lines}\n]}}\n')
    print(f'{name}: {value["size"]} tokens, {sum(len(row["special"]) for row in rows)} ids')


def main():
    (GOLDENS / 'real').mkdir(parents=True, exist_ok=True)
    (GOLDENS / 'texts.json').write_text(json.dumps({'texts': TEXTS, 'long': LONG}, indent=0) + '\n')
    for name, make in SMALL.items():
        folder = FIXTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = make(folder)
        if not any((folder / file).exists() for file in ['tokenizer.model', 'spiece.model', 'vocab.json']):
            (folder / 'tokenizer.json').write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(',', ':')) + '\n')
        record(name, tokenizer)
    for name, (files, config, load) in REALS.items():
        if all((REAL / path).exists() for path in files.values()):
            record(f'real/{name}', load(), files=files, config=config)
        else:
            print(f'{name}: its files are not here; golden left as it is')


if __name__ == '__main__':
    main()
