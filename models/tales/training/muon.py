"""Muon: momentum whose update is made orthogonal, for the matrices of the layers.

After Keller Jordan's description (2024). Matrices of one shape are handled as a
batch, which keeps the small products efficient on a CPU.
"""

from collections import defaultdict

import torch


def orthogonal(stack, steps=5):
    """Near-orthogonal matrices of the same row and column space (Newton-Schulz)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = stack.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.transpose(-1, -2)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        square = x @ x.transpose(-1, -2)
        x = a * x + (b * square + c * square @ square) @ x
    return (x.transpose(-1, -2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    def __init__(self, parameters, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = defaultdict(list)
            for p in group["params"]:
                shapes[p.shape].append(p)
            for shape, parameters in shapes.items():
                directions = []
                for p in parameters:
                    state = self.state[p]
                    if not state:
                        state["momentum"] = torch.zeros_like(p)
                    state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                    directions.append(p.grad.lerp(state["momentum"], group["momentum"]))
                updates = orthogonal(torch.stack(directions))
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(parameters, updates):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)
