"""Rows of tokens for training, a fixed function of the phase and the row number."""

from pathlib import Path

import numpy as np
import torch


class Documents:
    """One token file and where its documents start."""

    def __init__(self, folder, name):
        self.tokens = np.load(Path(folder) / f"{name}.npy", mmap_mode="r")
        self.starts = np.load(Path(folder) / f"{name}.starts.npy")
        self.plans = {}

    def aligned(self, number, length):
        """Row `number` of those that begin where a document begins."""
        if length not in self.plans:
            plan, position = [], 0
            while position + length < len(self.tokens):
                plan.append(position)
                following = np.searchsorted(self.starts, position + length)
                if following == len(self.starts):
                    break
                position = int(self.starts[following])
            self.plans[length] = plan
        plan = self.plans[length]
        start = plan[number % len(plan)]
        return self.tokens[start : start + length + 1]


class Stream:
    """The passes over the books one after another, cut anywhere."""

    def __init__(self, folder):
        files = sorted(Path(folder).glob("passages.[0-9].npy"))
        self.tokens = np.concatenate([np.load(f) for f in files])

    def row(self, number, length):
        start = number * length % (len(self.tokens) - length - 1)
        return self.tokens[start : start + length + 1]


def batch(rows):
    """(inputs, targets) of a list of rows."""
    both = torch.from_numpy(np.stack(rows).astype(np.int64))
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()
