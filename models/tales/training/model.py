"""GPT-NeoX in plain PyTorch, written for speed on a CPU.

The parameter names are those of transformers' GPTNeoXForCausalLM, so a state
dictionary exports one to one. Sequences always start at position 0 here:
generation with a cache is left to the programs that serve the model.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab_size: int = 4096
    hidden_size: int = 192
    num_layers: int = 5
    num_heads: int = 3
    intermediate_size: int = 768
    rotary_pct: float = 0.25
    rotary_base: float = 10000.0
    max_positions: int = 1024
    layer_norm_eps: float = 1e-5

    @property
    def head_size(self):
        return self.hidden_size // self.num_heads


def rotary_tables(config):
    """Cosines and sines, [positions, rotary dimensions], half-split layout."""
    dims = int(config.head_size * config.rotary_pct)
    inverse = config.rotary_base ** -(torch.arange(0, dims, 2).float() / dims)
    angles = torch.outer(torch.arange(config.max_positions).float(), inverse)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    """Turn the first rotary dimensions of every head; leave the others."""
    dims = cos.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    turned, kept = x[..., :dims], x[..., dims:]
    left, right = turned.chunk(2, dim=-1)
    swapped = torch.cat((-right, left), dim=-1)
    return torch.cat((turned * cos + swapped * sin, kept), dim=-1)


def attend(q, k, v):
    """Causal attention; short sequences are faster spelled out, since they compile."""
    length = q.shape[2]
    if length > 256:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    return scores.masked_fill(~seen, float("-inf")).softmax(-1).to(v.dtype) @ v


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads, self.head_size = config.num_heads, config.head_size
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        # The fused projection is laid out head by head: [query, key, value].
        qkv = self.query_key_value(x).view(batch, length, self.heads, 3 * self.head_size)
        q, k, v = qkv.transpose(1, 2).chunk(3, dim=-1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        mixed = attend(q, k, v)
        return self.dense(mixed.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x):
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x)))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        norm = dict(eps=config.layer_norm_eps)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, **norm)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, **norm)
        self.attention = Attention(config)
        self.mlp = MLP(config)

    def forward(self, x, cos, sin):
        # Parallel residual: both branches read the same input.
        return (
            x
            + self.attention(self.input_layernorm(x), cos, sin)
            + self.mlp(self.post_attention_layernorm(x))
        )


class Body(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_in = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids, cos, sin):
        x = self.embed_in(ids)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.final_layer_norm(x)


class NeoX(nn.Module):
    """The whole model; the output matrix is the embedding (tied)."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.gpt_neox = Body(config)
        cos, sin = rotary_tables(config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids):
        length = ids.shape[1]
        x = self.gpt_neox(ids, self.cos[:length], self.sin[:length])
        return F.linear(x, self.gpt_neox.embed_in.weight)


def token_loss(logits, targets):
    """Mean cross entropy, in float32 whatever the logits are."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def start_weights(model):
    """Small normal weights; the two projections into the residual start smaller still."""
    depth = (2 * model.config.num_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2:
            narrow = name.endswith(("attention.dense.weight", "dense_4h_to_h.weight"))
            nn.init.normal_(parameter, std=0.02 * (depth if narrow else 1.0))
        elif "norm" not in name:
            nn.init.zeros_(parameter)
