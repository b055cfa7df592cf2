"""Makes the tiny encoder-decoders in test/fixtures and their goldens in test/models/goldens-t5.

    venv/bin/python test/models/make_t5_goldens.py   # after make_goldens.py; the same environment

As there, the reference is transformers in float64. A golden is a .json with prompts (what the encoder reads), 64 greedy tokens of the
decoder with log-probabilities, and positions of the decoder's input (its start token, then the greedy tokens), and a .bin with the
logits of those positions. `rounding` says how far the float16 and bfloat16 runs of transformers are from them.
"""

import hashlib
import json

import numpy as np
import torch
import transformers

from make_goldens import FIXTURES, GREEDY_TOKENS, MAX_FLOAT32_DIFFERENCE, MIN_MARGIN, ROOT, make_tokenizer, write_json, write_safetensors

GOLDENS = ROOT / 'test' / 'models' / 'goldens-t5'
START = 5  # of the decoder's input: no id that could be another's default
PROMPT_LENGTHS = [1, 7, 33, 150, 300]  # beyond the last bucket's first distance

# One row per tiny checkpoint. Widths of all heads together that are not d_model, odd head counts and sizes, as many decoder blocks as
# encoder blocks or not.
CHECKPOINTS = [
    # T5 v1.0: relu, tied, scaled; a config of transformers 4, which does not say so.
    dict(name='t5-v1.0', seed=21, d_model=32, heads=3, d_kv=16, d_ff=64, layers=2, proj='relu', tied=None, old=True, dtype='float16'),
    # v1.1, Flan-T5, T0: gated, untied, not scaled; fewer decoder blocks; narrow buckets.
    dict(name='t5-v1.1', seed=22, d_model=40, heads=2, d_kv=24, d_ff=48, layers=3, decoder_layers=2, proj='gated-gelu', tied=False,
         buckets=16, max_distance=40, dtype='bfloat16'),
    # The same, saved again by transformers 5: a tie that is none.
    dict(name='t5-v1.1-resaved', seed=23, d_model=32, heads=2, d_kv=16, d_ff=32, layers=2, proj='gated-silu', tied=True, scaled=False,
         head=True),
    dict(name='mt5', seed=24, d_model=48, heads=3, d_kv=8, d_ff=64, layers=2, proj='gated-gelu', tied=False, mt5=True, dtype='bfloat16'),
]


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    for row in CHECKPOINTS:
        write_checkpoint(row, tokenizer)
        write_goldens(FIXTURES / row['name'], row)


def write_checkpoint(row, tokenizer):
    folder = FIXTURES / row['name']
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    write_json(folder / 'config.json', make_config(row))
    write_json(folder / 'tokenizer_config.json', {'eos_token': '<|endoftext|>'})
    (folder / 'tokenizer.json').write_text(json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + '\n')
    write_safetensors(folder / 'model.safetensors', make_tensors(row))


def make_config(row):
    mt5 = row.get('mt5', False)
    config = {
        'architectures': ['MT5ForConditionalGeneration' if mt5 else 'T5ForConditionalGeneration'], 'model_type': 'mt5' if mt5 else 't5',
        'vocab_size': 310, 'd_model': row['d_model'], 'd_kv': row['d_kv'], 'd_ff': row['d_ff'], 'num_layers': row['layers'],
        'num_heads': row['heads'], 'relative_attention_num_buckets': row.get('buckets', 32), 'layer_norm_epsilon': 1e-6,
        'feed_forward_proj': row['proj'], 'is_encoder_decoder': True, 'pad_token_id': 1, 'eos_token_id': 0,
        'decoder_start_token_id': START, 'dropout_rate': 0.1, 'n_positions': 512, 'torch_dtype': row.get('dtype', 'float32'),
    }
    if 'decoder_layers' in row:
        config['num_decoder_layers'] = row['decoder_layers']
    if not row.get('old'):
        config['relative_attention_max_distance'] = row.get('max_distance', 128)
    if row['tied'] is not None:
        config['tie_word_embeddings'] = row['tied']
    if 'scaled' in row:
        config['scale_decoder_outputs'] = row['scaled']
    return config


def make_tensors(row):
    """Random weights, large enough that attention is far from uniform and logits spread."""
    random = np.random.Generator(np.random.PCG64(row['seed']))
    width, inner, ffn, heads = row['d_model'], row['heads'] * row['d_kv'], row['d_ff'], row['heads']
    tensors = {}

    def normal(name, *shape, std, mean=0.0):
        values = torch.from_numpy(mean + std * random.standard_normal(shape))
        tensors[name] = values.to(getattr(torch, row.get('dtype', 'float32'))).contiguous()

    def attention(name):
        # No scale: the products of queries and keys have a standard deviation of about 1.5.
        for part in 'qk':
            normal(f'{name}.{part}.weight', inner, width, std=(1.5 / row['d_kv'] ** 0.5) ** 0.5 / width**0.5)
        normal(f'{name}.v.weight', inner, width, std=1 / width**0.5)
        normal(f'{name}.o.weight', width, inner, std=1 / inner**0.5)

    def norm(name):
        normal(f'{name}.weight', width, mean=1, std=0.1)

    tied = row['tied'] is not False and not row.get('head')
    normal('shared.weight', 310, width, std=0.4 if tied else 1)  # tied: or a token would be followed by itself
    for stack, count in (('encoder', row['layers']), ('decoder', row.get('decoder_layers', row['layers']))):
        for layer in range(count):
            block = f'{stack}.block.{layer}.layer'
            attention(f'{block}.0.SelfAttention')
            norm(f'{block}.0.layer_norm')
            mlp = 1
            if stack == 'decoder':
                attention(f'{block}.1.EncDecAttention')
                norm(f'{block}.1.layer_norm')
                mlp = 2
            for part in ('wi_0', 'wi_1') if row['proj'].startswith('gated') else ('wi',):
                normal(f'{block}.{mlp}.DenseReluDense.{part}.weight', ffn, width, std=1.5 / width**0.5)
            normal(f'{block}.{mlp}.DenseReluDense.wo.weight', width, ffn, std=1 / ffn**0.5)
            norm(f'{block}.{mlp}.layer_norm')
        normal(f'{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight', row.get('buckets', 32), heads, std=1)
        norm(f'{stack}.final_layer_norm')
    if tied:
        tensors['decoder.final_layer_norm.weight'] *= 6
    else:
        normal('lm_head.weight', 310, width, std=2.5 / width**0.5)
    if row.get('old'):  # duplicates that old files have
        for stack in ('encoder', 'decoder'):
            tensors[f'{stack}.embed_tokens.weight'] = tensors['shared.weight'].clone()
        tensors['lm_head.weight'] = tensors['shared.weight'].clone()
        normal('decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight', 32, heads, std=1)
    return tensors


def write_goldens(folder, row):
    model = load(folder, torch.float64)
    float32 = load(folder, torch.float32)
    halves = {name: load(folder, getattr(torch, name)) for name in ('float16', 'bfloat16')}
    rng = np.random.Generator(np.random.PCG64(row['seed'] + 1000))
    entries, logits, largest = [], [], 0.0
    errors = {name: [] for name in halves}
    for length in PROMPT_LENGTHS:
        while True:
            prompt = [int(token) for token in rng.integers(6, 300, length)]
            tokens, logprobs, margin = greedy(model, prompt)
            if margin >= MIN_MARGIN:
                break
        decoder_input = [START, *tokens[:-1]]
        reference = forward(model, prompt, decoder_input)
        largest = max(largest, float((reference - forward(float32, prompt, decoder_input)).abs().max()))
        positions = [0, 1, 15, 16, 40, 63]
        entries.append({'prompt': prompt, 'greedy': tokens, 'logprobs': logprobs, 'min_margin': margin, 'positions': positions})
        logits.append(reference[positions].numpy().astype('<f4'))
        for dtype, half in halves.items():
            errors[dtype].append((forward(half, prompt, decoder_input) - reference)[positions])
    assert largest < 5 * MAX_FLOAT32_DIFFERENCE, largest
    name = folder.name
    np.concatenate(logits).tofile(GOLDENS / f'{name}.bin')
    write_json(GOLDENS / f'{name}.json', {
        'model': str(folder.relative_to(ROOT)),
        'weights_sha256': hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest(),
        'reference': {'transformers': transformers.__version__, 'torch': torch.__version__, 'dtype': 'float64',
                      'attention': 'eager', 'float32_difference': float(f'{largest:.2e}')},
        'rounding': {dtype: rounding(torch.cat(parts)) for dtype, parts in errors.items()},
        'vocab_size': 310, 'decoder_start_token': START, 'prompts': entries,
    })
    std = float(np.concatenate(logits).std())
    print(f'{name}: float32 differs by {largest:.1e}, logits have a standard deviation of {std:.2f}, '
          f'{len(set(sum((entry["greedy"] for entry in entries), [])))} distinct greedy tokens')


def rounding(error):
    return {'max': float(f'{error.abs().max():.3e}'), 'rms': float(f'{error.square().mean().sqrt():.3e}')}


def load(folder, dtype):
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype, attn_implementation='eager').eval()


@torch.no_grad()
def forward(model, prompt, decoder_input):
    output = model(input_ids=torch.tensor([prompt]), decoder_input_ids=torch.tensor([decoder_input]), use_cache=False)
    return output.logits[0].to(torch.float64)


def greedy(model, prompt):
    """The most probable of the tokenizer's 300 ids, 64 times; log-probabilities are over the whole vocabulary."""
    ids, logprobs, min_margin = [START], [], float('inf')
    for _ in range(GREEDY_TOKENS):
        logits = forward(model, prompt, ids)[-1]
        best = torch.topk(logits[:300], 2)
        token = int(best.indices[0])
        min_margin = min(min_margin, float(best.values[0] - best.values[1]))
        logprobs.append(round(float(torch.log_softmax(logits, -1)[token]), 7))
        ids.append(token)
    return ids[1:], logprobs, float(f'{min_margin:.3e}')


if __name__ == '__main__':
    main()
