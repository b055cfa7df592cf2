"""Train Tales on a CPU.

The schedule follows the tokens done, not the clock: a short warm-up, a constant
learning rate, then a linear decay to zero. Passages come in rows of 256 tokens; the
last part is half passages, half chats, in rows of 512 and at last 1024. SIGTERM saves
a checkpoint and stops; a run that was stopped goes on from it, and with another
--tokens it decays sooner or later than it would have.
"""

import argparse
import csv
import os
import signal
import time
from pathlib import Path

import numpy as np
import torch
from export import write_config, write_weights
from model import Config, NeoX, start_weights, token_loss
from muon import Muon
from rows import Documents, Stream, batch

STEP_TOKENS = 8192
MICRO_TOKENS = 4096
WARM_UP = 1_000_000
DECAY_SHARE = 0.5
CHAT_SHARE = 0.3
LONG_SHARE = 0.1
MATRIX_RATE, OTHER_RATE = 0.025, 0.006
COLUMNS = ["tokens", "train_loss", "held_out_loss", "learning_rate_share"]


def phase(done, total):
    """(share of the peak learning rate, row length, whether chats are mixed in)."""
    left = 1 - done / total
    share = min(1.0, (done + STEP_TOKENS) / WARM_UP, left / DECAY_SHARE)
    if left > CHAT_SHARE:
        return share, 256, False
    return share, 1024 if left <= LONG_SHARE else 512, True


class Feed:
    def __init__(self, folder):
        self.stream = Stream(folder)
        self.passages = Documents(folder, "passages.2")
        self.chat = Documents(folder, "chat")

    def rows(self, done, length, mixed):
        """The rows of the step that begins at token `done`."""
        first, count = done // length, STEP_TOKENS // length
        if not mixed:
            return [self.stream.row(first + i, length) for i in range(count)]
        sources = (self.chat, self.passages)
        return [sources[(first + i) % 2].aligned((first + i) // 2, length) for i in range(count)]


def held_out_batches(folder, length=256, rows=64):
    tokens = np.load(Path(folder) / "held_out.npy")
    starts = np.linspace(0, len(tokens) - length - 1, rows).astype(int)
    cut = [tokens[s : s + length + 1] for s in starts]
    per_batch = MICRO_TOKENS // length
    return [batch(cut[i : i + per_batch]) for i in range(0, rows, per_batch)]


def keep_rows_up_to(path, tokens):
    """Drop what the log holds beyond a checkpoint, or begin a new log."""
    kept = []
    if tokens and path.exists():
        with path.open(newline="") as file:
            kept = [r for r in csv.DictReader(file) if int(r["tokens"]) <= tokens]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="folder that prepare.py wrote")
    parser.add_argument("--model", required=True, help="folder for config.json and weights")
    parser.add_argument("--log", required=True, help="loss curve, CSV")
    parser.add_argument("--checkpoint", required=True, help="file to go on from")
    parser.add_argument("--tokens", type=int, required=True, help="tokens in the whole run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report-every", type=int, default=100, help="steps")
    parser.add_argument("--save-every", type=int, default=300, help="steps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)

    config = Config()
    model = NeoX(config)
    start_weights(model)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and ".layers." in n]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    optimizers = [
        Muon(matrices, lr=MATRIX_RATE, weight_decay=0.02),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]
    peaks = [MATRIX_RATE, OTHER_RATE]

    def loss_of(inputs, targets):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(inputs)
        return token_loss(logits, targets)

    compiled = torch.compile(loss_of, dynamic=False)

    done, cpu_before = 0, 0.0
    if os.path.exists(options.checkpoint):
        state = torch.load(options.checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimizer, saved in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        done, cpu_before = state["tokens"], state["cpu_seconds"]
    log = Path(options.log)
    keep_rows_up_to(log, done)
    write_config(config, options.model)
    feed, held_out = Feed(options.data), held_out_batches(options.data)
    size = sum(p.numel() for p in model.parameters())
    print(f"{size} parameters, {done} tokens done", flush=True)

    def save():
        state = {
            "model": model.state_dict(),
            "optimizers": [o.state_dict() for o in optimizers],
            "tokens": done,
            "cpu_seconds": cpu_before + time.process_time(),
        }
        torch.save(state, options.checkpoint + ".partial")
        os.replace(options.checkpoint + ".partial", options.checkpoint)
        write_weights(model, options.model)

    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    step, losses, clock = 0, [], time.time()
    while done < options.tokens and not stopped:
        share, length, mixed = phase(done, options.tokens)
        inputs, targets = batch(feed.rows(done, length, mixed))
        micro = MICRO_TOKENS // length
        parts = range(0, len(inputs), micro)
        total = 0.0
        for i in parts:
            loss = compiled(inputs[i : i + micro], targets[i : i + micro]) / len(parts)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer, peak in zip(optimizers, peaks):
            optimizer.param_groups[0]["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        losses.append(total)
        done += STEP_TOKENS
        step += 1
        if step % options.report_every == 0 or done >= options.tokens:
            with torch.no_grad():
                held = sum(compiled(*b).item() for b in held_out) / len(held_out)
            train = sum(losses) / len(losses)
            with log.open("a", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow([done, f"{train:.4f}", f"{held:.4f}", f"{share:.4f}"])
            rate = len(losses) * STEP_TOKENS / (time.time() - clock)
            losses_now = f"train {train:.4f} held out {held:.4f}"
            print(f"{done} {losses_now} share {share:.3f} {rate:.0f} tokens/s", flush=True)
            losses, clock = [], time.time()
        if step % options.save_every == 0:
            save()
    save()
    cpu = cpu_before + time.process_time()
    print(f"{done} tokens, {cpu / 3600:.2f} CPU hours", flush=True)


if __name__ == "__main__":
    main()
