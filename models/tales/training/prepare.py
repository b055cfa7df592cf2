"""Write the token files that train.py reads.

Each document is a passage of whole paragraphs closed by <|endoftext|>; every pass
over the books cuts them at other places. Two kinds of files: `passages.N.npy` and
`chat.npy`, each with the start of every document beside it.
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from chat import story_chat, talks
from clean import ENDS_SENTENCE, HELD_OUT, clean_runs, read_books
from tokenizers import Tokenizer

END = 0
LONGEST = 1000
CAPITALS = frozenset('"ABCDEFGHIJKLMNOPQRSTUVWXYZÆÉ(')


def cut_passages(lengths, run, rng, short):
    """Cut a run into (start, stop) spans of paragraphs, each ending a sentence."""
    spans, start = [], 0
    total = len(run)
    while start < total:
        wanted = rng.randint(60, 380) if rng.random() < short else rng.randint(380, 900)
        stop, size, best = start, 0, None
        while stop < total and size + lengths[stop] + 2 <= LONGEST:
            size += lengths[stop] + 2
            stop += 1
            if ENDS_SENTENCE.search(run[stop - 1]):
                best = stop
                if size >= wanted:
                    break
        if best is None:
            start = max(stop, start + 1)
            continue
        spans.append((start, best))
        start = best
    return spans


def write(out, name, documents, rng):
    rng.shuffle(documents)
    starts = np.cumsum([0] + [len(d) for d in documents[:-1]])
    tokens = np.concatenate(documents).astype(np.uint16)
    np.save(out / f"{name}.npy", tokens)
    np.save(out / f"{name}.starts.npy", starts.astype(np.int64))
    return {"documents": len(documents), "tokens": len(tokens)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder with the two .txt.xz files")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json")
    parser.add_argument("--out", required=True, help="folder for the token files")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(options.tokenizer)

    def encode(texts):
        return [np.array(e.ids, np.uint16) for e in tokenizer.encode_batch_fast(texts)]

    newline = encode(["\n"])[0]
    end = np.array([END], np.uint16)
    runs, held_out = [], []
    for title, book in read_books(options.corpus):
        if title in HELD_OUT:
            held_out.append(book)
            continue
        for run in clean_runs(book):
            runs.append((run, encode(run)))

    def passages(short):
        documents, chats = [], []
        for run, ids in runs:
            for start, stop in cut_passages([len(i) for i in ids], run, rng, short):
                if sum(len(i) for i in ids[start:stop]) < 30 or run[start][0] not in CAPITALS:
                    continue
                # The pieces of a paragraph do not depend on its neighbours, so joining
                # their ids equals encoding the joined text.
                parts = [x for i in ids[start:stop] for x in (newline, newline, i)][2:]
                documents.append(np.concatenate((*parts, end)))
                if stop - start <= 8:
                    chats.append((run[start:stop], start == 0))
        return documents, chats

    report = {}
    for number in range(options.passes):
        documents, _ = passages(short=0.75)
        report[f"passages.{number}"] = write(out, f"passages.{number}", documents, rng)

    _, candidates = passages(short=0.95)
    chats = [story_chat(p, first, rng) for p, first in candidates]
    chats = [c for c in chats if c]
    talk = [t for run, _ in runs for t in talks(run, rng)]
    report["chat, stories"], report["chat, talk"] = len(chats), len(talk)
    documents = [d for d in encode(chats + talk) if len(d) <= LONGEST]
    report["chat"] = write(out, "chat", documents, rng)
    examples = rng.sample(chats, 30) + rng.sample(talk, 30)
    (out / "examples.txt").write_text("\n=====\n".join(examples), encoding="utf-8")

    held = np.concatenate([np.concatenate((i, end)) for i in encode(held_out)])
    np.save(out / "held_out.npy", held)
    report["held_out"] = {"tokens": len(held), "bytes": sum(len(b.encode()) for b in held_out)}
    (out / "report.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
