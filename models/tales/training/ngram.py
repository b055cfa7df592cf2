"""An order-3 byte n-gram model: contexts of up to three bytes, Witten-Bell smoothing."""

import numpy as np

ORDER = 3


def codes(data, length):
    """Every window of `length` bytes as one number."""
    count = len(data) - length + 1
    result = np.zeros(count, np.uint32)
    for i in range(length):
        result = (result << 8) | data[i : i + count]
    return result


def look_up(keys, values, wanted):
    """values[key == wanted], 0 where there is none; keys are sorted."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


class NGram:
    def __init__(self, text):
        data = np.frombuffer(text.encode(), np.uint8)
        self.levels = []
        for length in range(1, ORDER + 2):
            grams, counts = np.unique(codes(data, length), return_counts=True)
            # How often each context occurs and how many different bytes follow it.
            contexts, first = np.unique(grams >> 8, return_index=True)
            totals = np.add.reduceat(counts, first)
            kinds = np.diff(np.append(first, len(grams)))
            self.levels.append((grams, counts, contexts, totals, kinds))

    def bits(self, text):
        """Bits that the model spends on a text, from the first byte on."""
        data = np.frombuffer(text.encode(), np.uint8)
        chance = np.full(len(data), 1 / 256)
        for length, (grams, counts, contexts, totals, kinds) in enumerate(self.levels, 1):
            wanted = codes(data, length)
            seen = look_up(grams, counts, wanted)
            total = look_up(contexts, totals, wanted >> 8)
            kind = look_up(contexts, kinds, wanted >> 8)
            # The first bytes have too little before them for the longer contexts.
            lower = chance[length - 1 :]
            mixed = (seen + kind * lower) / np.maximum(total + kind, 1)
            chance[length - 1 :] = np.where(total > 0, mixed, lower)
        return float(-np.log2(chance).sum())
