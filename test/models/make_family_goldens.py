"""Makes the tiny checkpoints in test/fixtures/families and their goldens in test/models/goldens/families: every decoder family in
several configurations.

    python -m venv venv && venv/bin/pip install torch transformers numpy
    venv/bin/python test/models/make_family_goldens.py                # all of them
    venv/bin/python test/models/make_family_goldens.py llama opt      # only names that start so

Running it again gives the same bytes. Each checkpoint is built by transformers' own class from a config, filled with random numbers
that depend on its seed and the parameters' names only, saved, and read back by transformers for the reference: float64 arithmetic on the
stored weights, logits rounded to float32. The float32 run beside it must agree. The float16 and bfloat16 runs say how far the
reference's own rounding goes: `rounding` in the golden, the difference from the reference's logits.
"""

import hashlib
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from make_goldens import ROOT, forward, write_json

FIXTURES = ROOT / 'test' / 'fixtures' / 'families'
GOLDENS = ROOT / 'test' / 'models' / 'goldens' / 'families'

GREEDY_TOKENS = 16
MIN_MARGIN = 1e-3  # between the best and the second logit of each greedy step: no rounding can swap them
MAX_FLOAT32_DIFFERENCE = 5e-5
PROMPT_LENGTHS = [1, 9, 40, 284]  # with the greedy tokens up to 300

FINAL_NORMS = ['model.norm.weight', 'language_model.norm.weight', 'transformer.ln_f.weight', 'decoder.final_layer_norm.weight', 'final_layernorm.weight']

# Sizes where a row says nothing else, in Llama's words.
SMALL = dict(vocab_size=96, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=320)


def small(**changes):
    return {**SMALL, **changes}


# One row per checkpoint. `config`: arguments of transformers' config class. `legacy`: keys of config.json to write over what
# transformers 5 writes, null to take one away: the spelling of older files. `dtype`: of the stored numbers. `qk_gain`: size of queries
# and keys, smaller where scores are not scaled down.
CHECKPOINTS = [
    dict(name='llama-plain', kind='Llama', seed=1, config=small()),
    dict(name='llama-biases-mqa', kind='Llama', seed=2, config=small(
        num_key_value_heads=1, attention_bias=True, mlp_bias=True, tie_word_embeddings=True, hidden_act='gelu_new', rms_norm_eps=1e-5)),
    dict(name='llama-3-head80', kind='Llama', seed=3, dtype='bfloat16', config=small(
        num_attention_heads=3, num_key_value_heads=3, hidden_size=48, head_dim=80, rope_parameters=dict(
            rope_type='llama3', rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64))),
    dict(name='llama-3-legacy', kind='Llama', seed=4, config=small(num_attention_heads=6, num_key_value_heads=2, hidden_size=48), legacy=dict(
        rope_parameters=None, rope_theta=500000.0, dtype=None, torch_dtype='float32', rope_scaling=dict(
            rope_type='llama3', factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=128))),
    dict(name='llama-linear', kind='Llama', seed=5, dtype='float16', config=small(num_key_value_heads=2), legacy=dict(
        rope_parameters=None, rope_scaling=dict(type='linear', factor=4.0))),
    dict(name='llama-dynamic', kind='Llama', seed=6, config=small(rope_parameters=dict(rope_type='dynamic', rope_theta=1e4, factor=2.0))),
    dict(name='llama-yarn', kind='Llama', seed=7, config=small(num_key_value_heads=2, rope_parameters=dict(
        rope_type='yarn', rope_theta=1e4, factor=4.0, original_max_position_embeddings=80))),
    dict(name='mistral-window', kind='Mistral', seed=10, config=small(num_key_value_heads=2, sliding_window=32)),
    dict(name='mistral-no-window-head96', kind='Mistral', seed=11, dtype='bfloat16', config=small(
        num_attention_heads=2, num_key_value_heads=1, head_dim=96, sliding_window=None)),
    dict(name='mistral-short-window', kind='Mistral', seed=12, config=small(num_attention_heads=5, num_key_value_heads=5, hidden_size=40, sliding_window=3)),
    dict(name='qwen2-plain', kind='Qwen2', seed=20, config=small(num_key_value_heads=2, tie_word_embeddings=True, rope_parameters=dict(rope_type='default', rope_theta=1e6))),
    dict(name='qwen2-windows', kind='Qwen2', seed=21, dtype='float16', config=small(
        num_key_value_heads=4, num_hidden_layers=3, use_sliding_window=True, sliding_window=24, max_window_layers=1)),
    dict(name='qwen2-yarn', kind='Qwen2', seed=22, config=small(num_key_value_heads=2), legacy=dict(
        rope_parameters=None, rope_theta=1000000.0, layer_types=None, rope_scaling=dict(type='yarn', factor=4.0, original_max_position_embeddings=80))),
    dict(name='qwen3-plain', kind='Qwen3', seed=30, dtype='bfloat16', config=small(num_key_value_heads=2, head_dim=24, tie_word_embeddings=True)),
    dict(name='qwen3-biases-windows', kind='Qwen3', seed=31, config=small(
        num_attention_heads=3, num_key_value_heads=1, head_dim=16, attention_bias=True, use_sliding_window=True, sliding_window=20, max_window_layers=1)),
    dict(name='mixtral-plain', kind='Mixtral', seed=100, config=small(num_key_value_heads=2, num_local_experts=4, intermediate_size=24)),
    dict(name='mixtral-top1-window', kind='Mixtral', seed=101, dtype='float16', config=small(
        num_attention_heads=3, num_key_value_heads=1, hidden_size=48, num_local_experts=3, num_experts_per_tok=1, intermediate_size=40, sliding_window=24,
        tie_word_embeddings=True)),
    dict(name='mixtral-all-experts', kind='Mixtral', seed=102, dtype='bfloat16', config=small(
        num_key_value_heads=4, head_dim=16, num_local_experts=2, num_experts_per_tok=2, hidden_act='gelu')),
    dict(name='qwen3-moe-plain', kind='Qwen3Moe', seed=105, dtype='bfloat16', config=small(
        num_key_value_heads=2, head_dim=24, num_experts=8, num_experts_per_tok=4, moe_intermediate_size=20, norm_topk_prob=True)),
    dict(name='qwen3-moe-dense-layers', kind='Qwen3Moe', seed=106, dtype='float16', config=small(
        num_hidden_layers=5, num_key_value_heads=1, head_dim=16, num_experts=5, num_experts_per_tok=2, moe_intermediate_size=33, norm_topk_prob=False,
        decoder_sparse_step=2, mlp_only_layers=[3], tie_word_embeddings=True, attention_bias=True), legacy=dict(num_local_experts=None, num_experts=5)),
    dict(name='qwen3-moe-top1-window', kind='Qwen3Moe', seed=107, config=small(
        num_key_value_heads=4, head_dim=8, num_experts=6, num_experts_per_tok=1, moe_intermediate_size=16, norm_topk_prob=False, mlp_only_layers=[0],
        use_sliding_window=True, sliding_window=20)),
    dict(name='neox-parallel', kind='GPTNeoX', seed=40, config=small(rope_parameters=dict(rope_type='default', rope_theta=1e4, partial_rotary_factor=0.5))),
    dict(name='neox-sequential-linear', kind='GPTNeoX', seed=41, dtype='float16', config=small(
        use_parallel_residual=False, rope_parameters=dict(rope_type='linear', rope_theta=1e4, factor=2.0, partial_rotary_factor=1.0))),

    dict(name='gpt2-plain', kind='GPT2', model='GPT2LMHeadModel', seed=50, config=dict(vocab_size=96, n_positions=320, n_embd=32, n_layer=2, n_head=2)),
    dict(name='gpt2-odd', kind='GPT2', model='GPT2LMHeadModel', seed=51, dtype='float16', config=dict(
        vocab_size=97, n_positions=301, n_embd=40, n_layer=3, n_head=5, n_inner=72, activation_function='relu', layer_norm_epsilon=1e-3,
        tie_word_embeddings=False, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True)),
    dict(name='gpt2-unscaled', kind='GPT2', model='GPT2LMHeadModel', seed=52, dtype='bfloat16', config=dict(
        vocab_size=96, n_positions=320, n_embd=48, n_layer=2, n_head=3, scale_attn_weights=False), qkv_gain=0.8),
    dict(name='gpt-neo-windows', kind='GPTNeo', seed=53, attention='eager', qk_gain=0.8, config=dict(
        vocab_size=96, max_position_embeddings=320, hidden_size=32, num_layers=4, num_heads=4, intermediate_size=64,
        attention_types=[[['global', 'local'], 2]], window_size=24)),
    dict(name='gpt-neo-local-first', kind='GPTNeo', seed=54, attention='eager', qk_gain=0.6, dtype='float16', config=dict(
        vocab_size=96, max_position_embeddings=320, hidden_size=48, num_layers=3, num_heads=3,
        attention_types=[[['local'], 2], [['global'], 1]], window_size=7)),
    dict(name='gptj-plain', kind='GPTJ', seed=55, attention='eager', config=dict(
        vocab_size=96, n_positions=320, n_embd=32, n_layer=2, n_head=2, rotary_dim=8)),
    dict(name='gptj-head80', kind='GPTJ', seed=56, attention='eager', dtype='float16', config=dict(
        vocab_size=101, n_positions=320, n_embd=80, n_layer=1, n_head=1, rotary_dim=80, n_inner=96)),
    dict(name='codegen-plain', kind='CodeGen', seed=57, attention='eager', config=dict(
        vocab_size=96, n_positions=320, n_ctx=320, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)),
    dict(name='codegen-whole-head', kind='CodeGen', seed=58, attention='eager', dtype='bfloat16', config=dict(
        vocab_size=96, n_positions=320, n_ctx=320, n_embd=64, n_layer=2, n_head=4, rotary_dim=16, n_inner=80)),
    dict(name='opt-plain', kind='OPT', seed=60, config=dict(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64, max_position_embeddings=320, word_embed_proj_dim=32)),
    dict(name='opt-350m', kind='OPT', seed=61, config=dict(
        vocab_size=96, hidden_size=40, num_hidden_layers=2, num_attention_heads=5, ffn_dim=64, max_position_embeddings=320, word_embed_proj_dim=24,
        do_layer_norm_before=False), embedding_gain=1.7),
    dict(name='opt-galactica', kind='OPT', seed=62, dtype='float16', config=dict(
        vocab_size=96, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, ffn_dim=64, max_position_embeddings=320, word_embed_proj_dim=48,
        activation_function='gelu', enable_bias=False, layer_norm_elementwise_affine=False), embedding_gain=2.5),
    dict(name='opt-no-final-norm', kind='OPT', seed=63, dtype='bfloat16', config=dict(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, ffn_dim=64, max_position_embeddings=320, word_embed_proj_dim=16,
        _remove_final_layer_norm=True, tie_word_embeddings=False), head_gain=0.4),
    dict(name='bloom-plain', kind='Bloom', gain=2.5, seed=64, attention='eager', config=dict(vocab_size=96, hidden_size=32, n_layer=2, n_head=4)),
    dict(name='bloom-7-heads', kind='Bloom', gain=2.5, seed=65, attention='eager', dtype='bfloat16', config=dict(vocab_size=96, hidden_size=56, n_layer=2, n_head=7)),
    dict(name='bloom-legacy', kind='Bloom', gain=2.5, seed=66, attention='eager', dtype='float16', config=dict(vocab_size=96, hidden_size=48, n_layer=2, n_head=3), legacy=dict(
        hidden_size=None, n_embed=48, n_head=None, num_attention_heads=3, seq_length=512)),

    dict(name='gemma-plain', kind='Gemma', seed=70, config=small(num_key_value_heads=1, head_dim=16)),
    dict(name='gemma-legacy', kind='Gemma', seed=71, dtype='bfloat16', config=small(num_key_value_heads=4, head_dim=24), legacy=dict(
        hidden_act='gelu', rope_parameters=None, rope_theta=10000.0)),
    dict(name='gemma2-windows', kind='Gemma2', seed=72, attention='eager', config=small(
        num_hidden_layers=3, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=24, sliding_window=20, attn_logit_softcapping=5.0,
        final_logit_softcapping=4.0)),
    dict(name='gemma2-no-caps', kind='Gemma2', seed=73, dtype='bfloat16', config=small(
        num_attention_heads=3, hidden_size=48, num_key_value_heads=1, head_dim=16, query_pre_attn_scalar=16, sliding_window=9, attn_logit_softcapping=None,
        final_logit_softcapping=None), legacy=dict(layer_types=None, rope_parameters=None, rope_theta=10000.0)),
    dict(name='gemma3-windows', kind='Gemma3Text', model='Gemma3ForCausalLM', seed=74, config=small(
        num_hidden_layers=3, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=20,
        layer_types=['sliding_attention', 'full_attention', 'sliding_attention'], rope_parameters=dict(
            full_attention=dict(rope_type='linear', factor=8.0, rope_theta=1e6), sliding_attention=dict(rope_type='default', rope_theta=1e4)))),
    dict(name='gemma3-legacy', kind='Gemma3Text', model='Gemma3ForCausalLM', seed=75, dtype='bfloat16', config=small(
        num_hidden_layers=7, hidden_size=24, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8, sliding_window=11), legacy=dict(
        layer_types=None, sliding_window_pattern=6, rope_parameters=None, rope_theta=1000000.0, rope_local_base_freq=10000.0)),
    dict(name='gemma3-with-vision', kind='Gemma3', model='Gemma3ForConditionalGeneration', seed=76, dtype='bfloat16', config=dict(
        image_token_index=95, boi_token_index=94, eoi_token_index=93, mm_tokens_per_image=4, vision_config=dict(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14), text_config=small(
            hidden_size=32, num_key_value_heads=2, head_dim=16, query_pre_attn_scalar=16, sliding_window=33, num_hidden_layers=2, rope_parameters=dict(
                full_attention=dict(rope_type='linear', factor=8.0, rope_theta=1e6), sliding_attention=dict(rope_type='default', rope_theta=1e4)),
            layer_types=['sliding_attention', 'full_attention']))),
    dict(name='phi-plain', kind='Phi', seed=80, config=small()),
    dict(name='phi-qk-norm', kind='Phi', seed=81, dtype='float16', config=small(
        num_attention_heads=2, num_key_value_heads=1, hidden_size=40, qk_layernorm=True, rope_parameters=dict(
            rope_type='default', rope_theta=1e4, partial_rotary_factor=0.4))),
    dict(name='phi3-plain', kind='Phi3', seed=82, config=small(num_key_value_heads=2, sliding_window=40, original_max_position_embeddings=320)),
    dict(name='phi3-short', kind='Phi3', seed=83, dtype='bfloat16', config=small(
        num_key_value_heads=4, hidden_size=48, num_attention_heads=4, max_position_embeddings=2560, original_max_position_embeddings=320, rope_parameters=dict(
            rope_type='longrope', rope_theta=1e4, partial_rotary_factor=1.0, short_factor=[1.0, 1.1, 1.2, 1.3, 1.4, 1.5], long_factor=[1.0, 2.0, 3.0, 5.0, 8.0, 13.0]))),
    dict(name='phi3-long', kind='Phi3', seed=84, lengths=[17, 40, 284], config=small(
        num_key_value_heads=1, hidden_size=32, num_attention_heads=2, max_position_embeddings=640, original_max_position_embeddings=16, rope_parameters=dict(
            rope_type='longrope', rope_theta=1e4, partial_rotary_factor=0.75, short_factor=[1.0] * 6, long_factor=[1.0, 2.0, 3.0, 5.0, 8.0, 13.0])),
         legacy=dict(rope_parameters=None, rope_theta=10000.0, partial_rotary_factor=0.75, rope_scaling=dict(
             type='longrope', short_factor=[1.0] * 6, long_factor=[1.0, 2.0, 3.0, 5.0, 8.0, 13.0]))),
    dict(name='olmo2-plain', kind='Olmo2', seed=85, config=small()),
    dict(name='olmo2-grouped-biases', kind='Olmo2', seed=86, dtype='bfloat16', config=small(num_attention_heads=6, num_key_value_heads=2, hidden_size=48, attention_bias=True)),
    dict(name='stablelm-plain', kind='StableLm', seed=87, config=small(num_key_value_heads=4)),
    dict(name='stablelm-parallel-qk-norm', kind='StableLm', seed=88, dtype='float16', config=small(
        num_key_value_heads=2, use_qkv_bias=True, qk_layernorm=True, use_parallel_residual=True, rope_parameters=dict(
            rope_type='default', rope_theta=1e4, partial_rotary_factor=0.5))),
    dict(name='falcon-7b', kind='Falcon', seed=90, config=dict(
        vocab_size=96, hidden_size=42, num_hidden_layers=2, num_attention_heads=7, max_position_embeddings=320)),
    dict(name='falcon-40b', kind='Falcon', seed=91, dtype='bfloat16', config=dict(
        vocab_size=96, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, num_kv_heads=2, new_decoder_architecture=True,
        max_position_embeddings=320, ffn_hidden_size=80)),
    dict(name='falcon-11b', kind='Falcon', seed=92, config=dict(
        vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=1, new_decoder_architecture=True, num_ln_in_parallel_attn=1,
        tie_word_embeddings=False, max_position_embeddings=320)),
    dict(name='falcon-rw', kind='Falcon', seed=93, config=dict(
        vocab_size=96, hidden_size=48, num_hidden_layers=2, num_attention_heads=6, alibi=True, multi_query=False, parallel_attn=False, bias=True)),
]


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    names = [row['name'] for row in CHECKPOINTS]
    assert len(set(names)) == len(names)
    for row in CHECKPOINTS:
        if len(sys.argv) == 1 or any(row['name'].startswith(prefix) for prefix in sys.argv[1:]):
            write_checkpoint(row)
            write_goldens(row)


def write_checkpoint(row):
    folder = FIXTURES / row['name']
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    config = getattr(transformers, f'{row["kind"]}Config')(**row['config'], bos_token_id=0, eos_token_id=0, pad_token_id=None)
    kind = row.get('model', f'{row["kind"]}ForCausalLM')
    model = getattr(transformers, kind)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(numbers(row, config, name, tuple(parameter.shape))))
    model.to(getattr(torch, row.get('dtype', 'float32'))).save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    path = folder / 'config.json'
    written = json.loads(path.read_text())
    for key, value in row.get('legacy', {}).items():
        written.pop(key, None)
        if value is not None:
            written[key] = value
    write_json(path, written)
    size = sum(file.stat().st_size for file in folder.iterdir())
    assert size < 250_000, f'{row["name"]} has {size} bytes'
    for file in folder.iterdir():
        file.chmod(0o644)


def numbers(row, config, name, shape):
    """Large enough that attention is far from uniform, biases count and logits spread."""
    random = np.random.Generator(np.random.PCG64([row['seed'], zlib.crc32(name.encode())]))
    normal = random.standard_normal(shape)
    text = config.get_text_config()
    tied = text.tie_word_embeddings
    if 'norm' in name or '.ln_' in name:
        if name.endswith('bias'):
            return 0.2 * normal
        final = any(name.endswith(part) for part in FINAL_NORMS)
        size = 5 if final and tied else 0.2 if 'embeddings_layernorm' in name else 1
        return 0.3 * min(size, 1) * normal + size - (1 if row['kind'].startswith('Gemma') else 0)
    if name.endswith('bias'):
        return 0.2 * normal
    if any(part in name for part in ('embed_tokens', 'wte', 'word_embeddings', 'embed_in')):
        # A tied embedding is small beside what the blocks add, or each token would follow itself; the final norm makes up for it.
        return normal * (row.get('embedding_gain', 0.5) / shape[1]**0.5 if tied else 1)
    if any(part in name for part in ('embed_positions', 'wpe')):
        return 0.5 * normal
    if 'lm_head' in name:
        return normal * row.get('head_gain', 2.5) / shape[1]**0.5
    inputs = shape[0] if row['kind'] == 'GPT2' else shape[-1]
    gain = row.get('qk_gain', 1.5) if any(part in name for part in ('q_proj', 'k_proj')) else row.get('qkv_gain', 1.5) if 'c_attn' in name else row.get('gain', 1.5)
    return normal * gain / inputs**0.5


def write_goldens(row):
    folder = FIXTURES / row['name']
    attention = row.get('attention', 'sdpa')

    def load(dtype):
        # The grouped product of experts knows no float64.
        experts = dict(experts_implementation='eager') if row['kind'] in ('Mixtral', 'Qwen3Moe') else {}
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention, **experts).eval()

    exact, single = load(torch.float64), load(torch.float32)
    halves = {name: load(getattr(torch, name)) for name in ('float16', 'bfloat16')}
    vocab = exact.config.get_text_config().vocab_size
    prompts, rows, largest = [], [], 0.0
    errors = {name: [] for name in halves}
    for length in row.get('lengths', PROMPT_LENGTHS):
        prompt = first_clear(exact, row, length, vocab)
        sequence = prompt['prompt'] + prompt['greedy']
        prompt['positions'] = sorted({0, length // 2, length - 1, len(sequence) - 1})
        logits = forward(exact, sequence)[prompt['positions']]
        largest = max(largest, float((forward(single, sequence)[prompt['positions']] - logits).abs().max()))
        assert greedy(single, prompt['prompt'])[0] == prompt['greedy']
        for name, model in halves.items():
            errors[name].append(forward(model, sequence)[prompt['positions']] - logits)
        prompts.append(prompt)
        rows.append(logits.to(torch.float32).numpy())
    assert largest < MAX_FLOAT32_DIFFERENCE, f'{row["name"]}: float32 and float64 differ by {largest}'

    logits = np.concatenate(rows).astype('<f4')
    (GOLDENS / f'{row["name"]}.bin').write_bytes(logits.tobytes())
    rounding = {}
    for name, parts in errors.items():
        difference = torch.cat(parts)
        rounding[name] = {'max': float(f'{difference.abs().max():.3e}'), 'rms': float(f'{difference.square().mean().sqrt():.3e}')}
    write_json(GOLDENS / f'{row["name"]}.json', {
        'architecture': exact.config.architectures[0],
        'weights_sha256': hashlib.sha256((folder / 'model.safetensors').read_bytes()).hexdigest(),
        'reference': {
            'transformers': transformers.__version__, 'torch': torch.__version__.split('+')[0], 'attention': attention,
            'arithmetic': 'float64 on the stored weights, logits rounded to float32',
        },
        'rounding': rounding,
        'vocab_size': vocab,
        'prompts': prompts,
    })
    tokens = len({token for prompt in prompts for token in prompt['greedy']})
    margin = min(prompt['min_margin'] for prompt in prompts)
    print(f'{row["name"]}: logits std {logits.std():.2f}, {tokens} different greedy tokens, min margin {margin:.1e}, '
          f'float32 differs by {largest:.1e}, float16 by {rounding["float16"]["max"]:.1e}, bfloat16 by {rounding["bfloat16"]["max"]:.1e}', flush=True)


def first_clear(model, row, length, vocab):
    """The first random prompt whose greedy steps are all clear of near-ties, with its greedy tokens."""
    random = np.random.Generator(np.random.PCG64(1000 * row['seed'] + length))
    for _ in range(50):
        prompt = random.integers(0, vocab, length).tolist()
        ids, min_margin = greedy(model, prompt)
        if min_margin >= MIN_MARGIN:
            return {'prompt': prompt, 'greedy': ids, 'min_margin': min_margin}
    raise AssertionError('near-ties in too many prompts')


def greedy(model, prompt):
    ids, min_margin = list(prompt), float('inf')
    for _ in range(GREEDY_TOKENS):
        best = torch.topk(forward(model, ids)[-1], 2)
        min_margin = min(min_margin, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[len(prompt):], float(f'{min_margin:.3e}')


if __name__ == '__main__':
    main()
