"""Bits per byte on the held-out books: the model as shipped, xz and an n-gram model.

Two texts are measured: the books as the corpus has them, and the same books after the
cleaning that the training text went through.
"""

import argparse
import json
import lzma
import math

import torch
from clean import HELD_OUT, clean_runs, read_books
from ngram import NGram
from transformers import AutoModelForCausalLM, AutoTokenizer

WINDOW, STRIDE, BATCH = 1024, 512, 8


def model_bits(folder, books):
    """Windows overlap by half, so all but a book's first tokens see 512 before them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    nats, tokens = 0.0, 0
    for book in books:
        ids = torch.tensor([tokenizer.eos_token_id] + tokenizer(book)["input_ids"])
        tokens += len(ids) - 1
        scored, windows = 1, []
        for start in range(0, len(ids), STRIDE):
            stop = min(start + WINDOW, len(ids))
            windows.append((start, stop, scored - start))
            scored = stop
            if stop == len(ids):
                break
        for i in range(0, len(windows), BATCH):
            group = windows[i : i + BATCH]
            width = max(stop - start for start, stop, _ in group)
            # Padding stands behind the text, where causal attention cannot see it.
            rows = torch.zeros(len(group), width, dtype=torch.long)
            for row, (start, stop, _) in zip(rows, group):
                row[: stop - start] = ids[start:stop]
            with torch.no_grad():
                chances = model(rows).logits.log_softmax(-1)
            for j, (start, stop, first) in enumerate(group):
                targets = rows[j, first : stop - start]
                picked = chances[j, first - 1 : stop - start - 1].gather(1, targets[:, None])
                nats -= picked.double().sum().item()
    return nats / math.log(2), tokens


def prepared(book):
    return "\n\n".join("\n\n".join(run) for run in clean_runs(book))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder with the two .txt.xz files")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--out", required=True, help="JSON file for the results")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    books = list(read_books(options.corpus))
    training = [book for title, book in books if title not in HELD_OUT]
    held_out = [book for title, book in books if title in HELD_OUT]
    result = {"window": WINDOW, "stride": STRIDE, "books": list(HELD_OUT)}
    for name, prepare in (("as_published", str), ("prepared", prepared)):
        texts = [prepare(book) for book in held_out]
        joined = "\n\n".join(texts)
        size = len(joined.encode())
        bits, tokens = model_bits(options.model, texts)
        ngram = NGram("\n\n".join(prepare(book) for book in training))
        result[name] = {
            "bytes": size,
            "tokens": tokens,
            "model": bits / sum(len(t.encode()) for t in texts),
            "ngram_order_3": ngram.bits(joined) / size,
            "xz_9": 8 * len(lzma.compress(joined.encode(), preset=9)) / size,
            "xz_9e": 8 * len(lzma.compress(joined.encode(), preset=9 | lzma.PRESET_EXTREME)) / size,
        }
        print(name, json.dumps(result[name]), flush=True)
    with open(options.out, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
