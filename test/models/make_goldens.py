"""Makes the tiny checkpoints in test/fixtures and everything in test/models/goldens.

    python -m venv venv && venv/bin/pip install torch transformers tokenizers safetensors numpy
    venv/bin/python test/models/make_goldens.py               # all of it
    venv/bin/python test/models/make_goldens.py models/tales  # only the goldens of these model folders

Running it again gives the same bytes. The reference is transformers: each model is read from its committed folder and run in
float64, and its logits are rounded to float32, so that the last bits do not depend on the machine's instruction set or number of
threads. Transformers' ordinary float32 run is made beside it and must agree; the largest difference is printed.

A golden is a .json with prompts, 64 greedy tokens with log-probabilities, and positions, and a .bin with the logits of those
positions: little-endian float32, one row of vocab_size numbers each, in the order of the .json.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / 'test' / 'fixtures'
GOLDENS = ROOT / 'test' / 'models' / 'goldens'
NEOX_TOKENIZER = ROOT.parent / 'shared' / 'data' / 'tokenizers' / 'gpt-neox-20b' / '20B_tokenizer.json'

GREEDY_TOKENS = 64
MIN_MARGIN = 1e-3  # between the best and the second logit of each greedy step: no rounding can swap them
MAX_FLOAT32_DIFFERENCE = 2e-5

# One row per tiny checkpoint. `spelling`: how config.json writes the rotary fields (pythia: released 2023 files; v4: transformers
# 4.57; v5: transformers 5). `vocab` above the tokenizer's 300 ids makes padded rows. `dtype` is the stored type.
CHECKPOINTS = [
    dict(name='neox-parallel', seed=1, hidden=32, heads=2, ffn=96, layers=2, vocab=300, spelling='pythia'),
    dict(name='neox-sequential', seed=2, hidden=40, heads=2, ffn=64, layers=2, vocab=301, pct=0.3, parallel=False, spelling='v5',
         shards=3),
    dict(name='neox-no-attention-bias', seed=3, hidden=32, heads=4, ffn=64, layers=2, vocab=331, pct=0.5, act='gelu_new',
         attention_bias=False, spelling='v4'),
    dict(name='neox-tied', seed=4, hidden=48, heads=3, ffn=80, layers=2, vocab=300, pct=1.0, act='gelu_fast', tied=True, spelling='v5'),
    dict(name='neox-head80-f16', seed=5, hidden=80, heads=1, ffn=96, layers=1, vocab=300, dtype='float16', spelling='pythia'),
    dict(name='neox-bf16', seed=6, hidden=64, heads=4, ffn=96, layers=2, vocab=300, theta=500, act='relu', dtype='bfloat16',
         spelling='v5'),
]
PROMPT_LENGTHS = [1, 5, 17, 70]

# For real models: the first three of these that keep every greedy step clear of near-ties.
TEXT_PROMPTS = [
    'Once upon a time there was a little girl who lived with her mother at the edge of a great forest.',
    'The old king looked at his three sons and said, "',
    'It was a dark night, and the wind',
    '"Who are you?" asked the fox.',
    'In the middle of the village stood a well, and every morning',
    'When the ship came into the harbour, the captain',
    'There was once a poor woodcutter',
    'He opened the door of the house and',
]

TRAINING_TEXT = """The old man sat by the river and told the children a story. There was once a king who had three sons, and
the youngest of them went out into the world to seek his fortune. He walked for many days through the forest until he came to
the house of an old woman. "Where are you going?" said she. "I am going to find the water of life," he answered, "for my father
is ill." Then she gave him bread and told him the way to the mountain. It was the best of times; it wasn't the worst of them.
In 1850 there were 1250 ships in the harbour, and they'd all sail when the wind came from the west."""

HARD_TEXTS = [
    '', ' ', 'a', 'Hello, world!', "I'M it's  two\n\n x ²½Ⅷ 12a  ", "they'll we've I'd don't CAN'T ''s 's",
    'line one\r\nline two\r\n\r\nline three\n', '\t\tdef f(x):\n        return x  # two\n\n\n', ' ' * 40 + 'x' + ' ' * 7, '\u00a0\u3000\u2028\u2029\u0085x',
    'a\ufeffb\u200bc\u001cd\u180ee', '\x00\x01\x07\x1b[0m\x7f', '😀😃👍🏽🇩🇪🏳️‍🌈👩‍👩‍👧‍👦❤️', 'naïve café Åström ﬁ ﬀ ß ſ Ǆ', 'e\u0301a\u0308o\u0323\u0307 \u1e9b\u0323 \u212b',
    '漢字かなカナ、한국어 ㄱㄴ 中文。', 'مرحبا بالعالم ١٢٣ שלום עולם', 'ไทย हिन्दी বাংলা தமிழ்', 'x' * 300, 'ab' * 150, '!!!???...,,,---===', '𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 \U0010ffff',
    '<|endoftext|>', 'a<|endoftext|>b <|endoftext|> c<|endoftext', '<|padding|><|endoftext|>\n', 'www.example.com/path?x=1&y=2#z', '3.14159 1,000,000 0x1F',
    'Z\u0351\u0369\u034a\u0343a\u030c\u0310l\u0334g\u0321o\u0327', '\u202eright to left\u202c', 'tab\there   three  two one ',
]


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    folders = [Path(argument).resolve() for argument in sys.argv[1:]]
    if not folders:
        tokenizer = make_tokenizer()
        write_tokenizer_goldens(tokenizer)
        for row in CHECKPOINTS:
            write_checkpoint(row, tokenizer)
            write_goldens(FIXTURES / row['name'], row)
        folders = [ROOT / 'models' / 'tales']
    for folder in folders:
        write_goldens(folder, None)


# --- tokenizer -----------------------------------------------------------------------------------------------------------------


def make_tokenizer():
    """300 ids in the manner of GPT-NeoX-20B: NFC, byte-level BPE, two special tokens, runs of spaces as added tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=294,
        special_tokens=['<|endoftext|>', '<|padding|>'],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING_TEXT.split('\n'), trainer)
    tokenizer.add_tokens([AddedToken(' ' * length, normalized=True) for length in (12, 8, 6, 4, 3, 2)])
    assert tokenizer.get_vocab_size() == 300
    return tokenizer


def write_tokenizer_goldens(tokenizer):
    """Ids of hard texts, with special tokens found in the text and with their names taken as text."""
    texts = [*HARD_TEXTS, TRAINING_TEXT]
    goldens = {'tokenizers': tokenizers.__version__, 'texts': texts, 'fixture': encode_both(tokenizer, texts)}
    if NEOX_TOKENIZER.exists():
        goldens['gpt-neox-20b'] = encode_both(Tokenizer.from_file(str(NEOX_TOKENIZER)), texts)
    else:
        print('no GPT-NeoX-20B tokenizer beside the repository: its ids are kept as they are')
        goldens['gpt-neox-20b'] = json.loads((GOLDENS / 'tokenizer.json').read_text())['gpt-neox-20b']
    write_json(GOLDENS / 'tokenizer.json', goldens)


def encode_both(tokenizer, texts):
    def ids():
        return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]

    special = ids()
    tokenizer.encode_special_tokens = True
    plain = ids()
    tokenizer.encode_special_tokens = False
    return {'special': special, 'plain': plain}


# --- tiny checkpoints ----------------------------------------------------------------------------------------------------------


def write_checkpoint(row, tokenizer):
    folder = FIXTURES / row['name']
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    write_json(folder / 'config.json', make_config(row))
    tokenizer_config = {'add_prefix_space': False, 'bos_token': '<|endoftext|>', 'eos_token': '<|endoftext|>'}
    if row['name'] == 'neox-parallel':
        tokenizer_config['chat_template'] = (
            "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + eos_token }}{% endfor %}"
            "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
        )
        write_json(folder / 'generation_config.json', {'eos_token_id': [0, 1], 'temperature': 0.8, 'top_p': 0.9, 'do_sample': True})
    write_json(folder / 'tokenizer_config.json', tokenizer_config)
    (folder / 'tokenizer.json').write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + '\n')

    tensors = make_tensors(row)
    shards = row.get('shards', 1)
    if shards == 1:
        write_safetensors(folder / 'model.safetensors', tensors)
        return
    weight_map = {name: f'model-{index % shards + 1:05}-of-{shards:05}.safetensors' for index, name in enumerate(sorted(tensors))}
    for shard in sorted(set(weight_map.values())):
        write_safetensors(folder / shard, {name: tensors[name] for name in tensors if weight_map[name] == shard})
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(folder / 'model.safetensors.index.json', {'metadata': {'total_size': total}, 'weight_map': weight_map})


def write_safetensors(path, tensors):
    save_file(tensors, path, metadata={'format': 'pt'})
    path.chmod(0o644)


def make_config(row):
    pct, theta, dtype = row.get('pct', 0.25), row.get('theta', 10000), row.get('dtype', 'float32')
    rotary = {
        'pythia': {'rotary_pct': pct, 'rotary_emb_base': theta, 'torch_dtype': dtype},
        'v4': {'rotary_pct': pct, 'rotary_emb_base': theta, 'partial_rotary_factor': pct, 'rope_theta': theta, 'rope_scaling': None,
               'dtype': dtype},
        'v5': {'rope_parameters': {'rope_type': 'default', 'rope_theta': float(theta), 'partial_rotary_factor': pct}, 'dtype': dtype},
    }[row['spelling']]
    config = {
        'architectures': ['GPTNeoXForCausalLM'], 'model_type': 'gpt_neox', 'bos_token_id': 0, 'eos_token_id': 0,
        'hidden_size': row['hidden'], 'num_attention_heads': row['heads'], 'num_hidden_layers': row['layers'],
        'intermediate_size': row['ffn'], 'vocab_size': row['vocab'], 'max_position_embeddings': 256, 'hidden_act': row.get('act', 'gelu'),
        'layer_norm_eps': 1e-5, 'use_parallel_residual': row.get('parallel', True), 'tie_word_embeddings': row.get('tied', False), **rotary,
    }
    if 'attention_bias' in row:
        config['attention_bias'] = row['attention_bias']
    return config


def make_tensors(row):
    """Random weights, large enough that attention is far from uniform, biases count and logits spread."""
    random = np.random.Generator(np.random.PCG64(row['seed']))
    hidden, ffn, vocab = row['hidden'], row['ffn'], row['vocab']
    tensors = {}

    def normal(name, *shape, std, mean=0.0):
        values = torch.from_numpy(mean + std * random.standard_normal(shape))
        tensors[name] = values.to(getattr(torch, row.get('dtype', 'float32'))).contiguous()

    def linear(name, rows, cols, gain, bias=True):
        normal(f'{name}.weight', rows, cols, std=gain / cols**0.5)
        if bias:
            normal(f'{name}.bias', rows, std=0.2)

    def norm(name):
        normal(f'{name}.weight', hidden, std=0.3, mean=1.0)
        normal(f'{name}.bias', hidden, std=0.2)

    normal('gpt_neox.embed_in.weight', vocab, hidden, std=2.5 / hidden**0.5 if row.get('tied') else 1.0)
    for layer in range(row['layers']):
        prefix = f'gpt_neox.layers.{layer}'
        attention_bias = row.get('attention_bias', True)
        norm(f'{prefix}.input_layernorm')
        norm(f'{prefix}.post_attention_layernorm')
        linear(f'{prefix}.attention.query_key_value', 3 * hidden, hidden, 1.5, attention_bias)
        linear(f'{prefix}.attention.dense', hidden, hidden, 1.5, attention_bias)
        linear(f'{prefix}.mlp.dense_h_to_4h', ffn, hidden, 1.5)
        linear(f'{prefix}.mlp.dense_4h_to_h', hidden, ffn, 1.5)
    norm('gpt_neox.final_layer_norm')
    if not row.get('tied'):
        normal('embed_out.weight', vocab, hidden, std=2.5 / hidden**0.5)
    return tensors


# --- goldens -------------------------------------------------------------------------------------------------------------------


def write_goldens(folder, row):
    exact = load(folder, torch.float64)
    single = load(folder, torch.float32)
    tokenizer = Tokenizer.from_file(str(folder / 'tokenizer.json'))
    num_sampled_ids = min(tokenizer.get_vocab_size(), exact.config.vocab_size)
    candidates = [text_candidates(tokenizer)] * 3 if row is None else [random_candidates(row, length) for length in PROMPT_LENGTHS]
    prompts = [first_clear(exact, source, num_sampled_ids) for source in candidates]

    rows, largest = [], 0.0
    for prompt in prompts:
        # Every position of one short prompt, the last of the others, and the last after all greedy tokens.
        length = len(prompt['prompt'])
        sequence = prompt['prompt'] + prompt['greedy']
        prompt['positions'] = [*(range(length) if length == 17 else [length - 1]), len(sequence) - 1]
        logits, float32_logits = forward(exact, sequence), forward(single, sequence)
        largest = max(largest, float((logits - float32_logits).abs().max()))
        assert greedy(single, prompt['prompt'], num_sampled_ids)[0] == prompt['greedy']
        rows.append(logits[prompt['positions']].to(torch.float32).numpy())
    assert largest < MAX_FLOAT32_DIFFERENCE, f'{folder.name}: float32 and float64 differ by {largest}'

    logits = np.concatenate(rows).astype('<f4')
    (GOLDENS / f'{folder.name}.bin').write_bytes(logits.tobytes())
    write_json(GOLDENS / f'{folder.name}.json', {
        'model': folder.relative_to(ROOT).as_posix(),
        'weights_sha256': [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob('*.safetensors'))],
        'reference': {
            'transformers': transformers.__version__, 'torch': torch.__version__.split('+')[0], 'attention': 'sdpa',
            'arithmetic': 'float64 on the stored weights, logits rounded to float32',
        },
        'vocab_size': exact.config.vocab_size,
        'num_sampled_ids': num_sampled_ids,
        'prompts': prompts,
    })
    margin = min(prompt['min_margin'] for prompt in prompts)
    tokens = len({token for prompt in prompts for token in prompt['greedy']})
    print(f'{folder.name}: logits std {logits.std():.2f}, {tokens} different greedy tokens, min margin {margin:.1e}, '
          f'float32 differs by {largest:.1e}')


def random_candidates(row, length):
    random = np.random.Generator(np.random.PCG64(1000 * row['seed'] + length))
    while True:
        yield {'prompt': random.integers(2, 300, length).tolist()}


def text_candidates(tokenizer):
    for text in TEXT_PROMPTS:
        yield {'text': text, 'prompt': tokenizer.encode(text, add_special_tokens=False).ids}


def first_clear(model, candidates, num_sampled_ids):
    """The first prompt whose greedy steps are all clear of near-ties, with its greedy tokens."""
    for candidate in candidates:
        ids, logprobs, min_margin = greedy(model, candidate['prompt'], num_sampled_ids)
        if min_margin >= MIN_MARGIN:
            return {**candidate, 'greedy': ids, 'logprobs': logprobs, 'min_margin': min_margin}
    raise AssertionError('near-ties in too many prompts: add some to TEXT_PROMPTS')


def load(folder, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation='sdpa')
    return model.eval()


@torch.no_grad()
def forward(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0].to(torch.float64)


def greedy(model, prompt, num_sampled_ids):
    """The most probable token of those that the tokenizer has, 64 times; log-probabilities are over the whole vocabulary."""
    ids, logprobs, min_margin = list(prompt), [], float('inf')
    for _ in range(GREEDY_TOKENS):
        logits = forward(model, ids)[-1]
        best = torch.topk(logits[:num_sampled_ids], 2)
        token = int(best.indices[0])
        min_margin = min(min_margin, float(best.values[0] - best.values[1]))
        logprobs.append(round(float(torch.log_softmax(logits, -1)[token]), 7))
        ids.append(token)
    return ids[len(prompt):], logprobs, float(f'{min_margin:.3e}')


def write_json(path, value):
    """One key a line, but lists of plain values on one line."""
    path.write_text(format_json(value, 0) + '\n')


def format_json(value, depth):
    nested = isinstance(value, (dict, list)) and any(isinstance(item, (dict, list)) for item in (value.values() if isinstance(value, dict) else value))
    if depth > 0 and not nested or not value:
        return json.dumps(value, ensure_ascii=False)
    pad = '  ' * (depth + 1)
    if isinstance(value, dict):
        lines = [f'{pad}{json.dumps(key, ensure_ascii=False)}: {format_json(item, depth + 1)}' for key, item in value.items()]
        return '{\n' + ',\n'.join(lines) + '\n' + '  ' * depth + '}'
    return '[\n' + ',\n'.join(pad + format_json(item, depth + 1) for item in value) + '\n' + '  ' * depth + ']'


if __name__ == '__main__':
    main()
