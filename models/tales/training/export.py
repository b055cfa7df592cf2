"""Write a checkpoint as Hugging Face files: config.json and fp16 safetensors."""

import json
import os
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_config(config, folder):
    settings = {
        "architectures": ["GPTNeoXForCausalLM"],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dtype": "float16",
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "hidden_dropout": 0.0,
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "layer_norm_eps": config.layer_norm_eps,
        "max_position_embeddings": config.max_positions,
        "model_type": "gpt_neox",
        "num_attention_heads": config.num_heads,
        "num_hidden_layers": config.num_layers,
        "pad_token_id": 0,
        "rope_scaling": None,
        "rotary_emb_base": int(config.rotary_base),
        "rotary_pct": config.rotary_pct,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_parallel_residual": True,
        "vocab_size": config.vocab_size,
    }
    (Path(folder) / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def write_weights(model, folder):
    """The weights in fp16, moved into place whole so that a reader never sees half a file."""
    weights = {n: p.detach().to(torch.float16).contiguous() for n, p in model.named_parameters()}
    target = Path(folder) / "model.safetensors"
    partial = target.with_suffix(".partial")
    save_file(weights, partial, metadata={"format": "pt"})
    partial.chmod(0o644)
    os.replace(partial, target)
