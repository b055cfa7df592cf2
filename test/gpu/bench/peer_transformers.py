"""The shapes of models.cc in transformers, on the same GPU and beside the same floors (models.cc has their formulas).

    peer_transformers.py --gbps N --tflops N [--models Pythia-1.4B,...] [--device cuda|cpu] [--contexts 256] [--batches 1,8,32,64,128]
                         [--prompts 512,2048] [--requests 512] [--lengths 202,179] [--running 128] [--paged no] [--compiled yes]

Weights are random float16 numbers, tokens are random and the choice is greedy, without an end of text. A step's time is that of the further tokens of
`generate` after a prompt, which is timed by itself: as in models.cc, the choice is in it. Offline, `generate` gets --running requests at
a time, all of one length, which is its best case: no request waits for a longer one. `generate_batch` is continuous batching over pages;
--paged names its attention: `paged|sdpa`, all that PyTorch alone has, lets each token look at the keys of all sequences behind a mask and
records no CUDA graphs; `paged|flash_attention_2` needs the package flash-attn. --compiled: steps with a static cache too, by torch.compile and
CUDA graphs; it compiles for up to a minute for each number of sequences.
"""

import argparse
import logging
import math
import time
from collections.abc import Callable

import torch
import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig, GPTNeoXConfig, GPTNeoXForCausalLM

# name: hidden size, layers, heads, dims of a head that are rotated, vocabulary
SHAPES = {
    "Pythia-410M": (1024, 24, 16, 16, 50304),
    "Pythia-1.4B": (2048, 24, 16, 32, 50304),
    "Pythia-6.9B": (4096, 32, 32, 32, 50432),
    "GPT-NeoX-20B": (6144, 44, 64, 24, 50432),
    "tiny": (64, 2, 4, 8, 512),
}
NEW_TOKENS = 33  # of a run that times steps: the prompt gives the first
ROUNDS = 3
PAGED_STEP_TOKENS = 1024  # a step of continuous batching takes so many at most, of prompts and completions


def random_model(name: str, device: str) -> GPTNeoXForCausalLM:
    hidden, layers, heads, rotated, vocab = SHAPES[name]
    config = GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": rotated * heads / hidden},
        max_position_embeddings=2304,
        eos_token_id=None,
        bos_token_id=None,
    )
    with torch.device(device):
        model = GPTNeoXForCausalLM._from_config(config, dtype=torch.float16, attn_implementation="sdpa")
    return model.eval()


class Floors:
    """Seconds that reading and arithmetic alone take; models.cc has the formulas."""

    def __init__(self, name: str, bytes_a_second: float, operations_a_second: float) -> None:
        self.hidden, self.layers, _, _, self.vocab = SHAPES[name]
        self.block = 12 * self.layers * self.hidden**2
        self.weight_bytes = 2 * (self.block + self.vocab * self.hidden)
        self.kv_bytes = 4 * self.layers * self.hidden
        self.bytes_a_second, self.operations_a_second = bytes_a_second, operations_a_second

    def prompt(self, tokens: float) -> float:
        attention = 2 * self.layers * self.hidden * tokens**2
        return (2 * self.block * tokens + attention + 2 * self.vocab * self.hidden) / self.operations_a_second

    def step(self, batch: float, context: float) -> float:
        weights = max(self.weight_bytes / self.bytes_a_second, batch * self.weight_bytes / self.operations_a_second)
        return weights + batch * context * self.kv_bytes / self.bytes_a_second

    def offline(self, running: float, prompt: float, completion: float) -> float:
        return completion * self.step(running, prompt + completion / 2) + running * self.prompt(prompt)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser.add_argument("--gbps", type=float, required=True)
    parser.add_argument("--tflops", type=float, required=True)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["Pythia-1.4B", "Pythia-6.9B"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--contexts", type=numbers, default=[256])
    parser.add_argument("--batches", type=numbers, default=[1, 8, 32, 64, 128])
    parser.add_argument("--prompts", type=numbers, default=[512, 2048])
    parser.add_argument("--requests", type=int, default=512)
    parser.add_argument("--lengths", type=numbers, default=[202, 179])
    parser.add_argument("--running", type=int, default=128)
    parser.add_argument("--paged", default="paged|sdpa")
    parser.add_argument("--compiled", choices=["yes", "no"], default="no")
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.ERROR)
    device = torch.cuda.get_device_name() if options.device == "cuda" else "CPU"
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, {device}, float16", flush=True)
    for name in options.models:
        bench(name, options)


@torch.no_grad()
def bench(name: str, options: argparse.Namespace) -> None:
    floors = Floors(name, options.gbps * 1e9, options.tflops * 1e12)
    vocab = SHAPES[name][-1]
    model = random_model(name, options.device)
    torch.manual_seed(1)
    prompts = lambda count, length: torch.randint(0, vocab, (count, length), device=options.device)

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if options.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def generate(ids: torch.Tensor, new_tokens: int, **more: object) -> torch.Tensor:
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=None,
            pad_token_id=0,
            **more,
        )

    def steps(kind: str, batch: int, context: int, **more: object) -> None:
        ids = prompts(batch, context - NEW_TOKENS // 2)  # the steps' mean context is --contexts
        generate(ids, NEW_TOKENS, **more)
        generate(ids, 1, **more)
        times = [seconds(lambda: generate(ids, NEW_TOKENS, **more)) - seconds(lambda: generate(ids, 1, **more)) for _ in range(ROUNDS)]
        step = sorted(times)[ROUNDS // 2] / (NEW_TOKENS - 1)
        told = f"{1e3 * step:9.3f} ms, {batch / step:9.1f} tokens/s, {100 * floors.step(batch, context) / step:3.0f}% of the floor"
        print(f"  {kind}, {context:4d} tokens of context, batch {batch:3d}: {told}", flush=True)

    print(f"\n{name}", flush=True)
    for context in options.contexts:
        for batch in options.batches:
            steps("decode", batch, context)
        if options.compiled == "yes":
            for batch in options.batches:
                steps("decode, compiled", batch, context, cache_implementation="static")
    for length in options.prompts:
        ids = prompts(1, length)
        generate(ids, 1)
        took = sorted(seconds(lambda: generate(ids, 1)) for _ in range(ROUNDS))[ROUNDS // 2]
        floor = max(floors.prompt(length), floors.weight_bytes / floors.bytes_a_second)
        print(f"  prompt of {length:4d} tokens: {1e3 * took:9.3f} ms, {length / took:9.1f} tokens/s, {100 * floor / took:3.0f}% of the floor", flush=True)

    prompt, completion = options.lengths
    running = min(options.running, options.requests)

    def offline(kind: str, took: float) -> None:
        speed = options.requests * completion / took
        share = 100 * speed * floors.offline(running, prompt, completion) / (running * completion)
        requests = f"{options.requests} requests of {prompt} + {completion} tokens, {running} at a time"
        print(f"  offline by {kind}, {requests}: {speed:9.1f} output tokens/s, {share:3.0f}% of the floor", flush=True)

    ids = prompts(options.requests, prompt)
    generate(ids[:running], 2)
    offline("generate", seconds(lambda: [generate(some, completion) for some in ids.split(running)]))
    if options.paged == "no":
        return
    model.set_attn_implementation(options.paged)
    made: dict[str, object] = {}
    settings = GenerationConfig(do_sample=False, max_new_tokens=completion, eos_token_id=-1, pad_token_id=0)
    pages = ContinuousBatchingConfig(
        max_requests_per_batch=running,
        max_batch_tokens=PAGED_STEP_TOKENS,
        # 5.17 has no page_size: it takes what memory is left
        num_blocks=running * math.ceil((prompt + completion) / ContinuousBatchingConfig.page_size)
        if hasattr(ContinuousBatchingConfig, "page_size")
        else None,
        allow_block_sharing=False,
    )
    took = seconds(lambda: made.update(model.generate_batch(ids.tolist(), settings, pages)))
    tokens = sum(len(result.generated_tokens) for result in made.values())
    if tokens != options.requests * completion:
        raise SystemExit(f"generate_batch: expected {options.requests * completion} tokens, got {tokens}")
    offline(f"generate_batch, {options.paged}", took)


if __name__ == "__main__":
    main()
