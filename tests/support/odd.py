"""A program whose weights are awkward to pack."""

from __future__ import annotations

import torch
from graphwright.ir.capture import capture
from torch import nn


class Odd(nn.Module):
    """Columns that fill no byte, a tied head, and a weight stored (in, out)."""

    def __init__(self):
        super().__init__()
        self.table, self.layer = nn.Embedding(31, 10), nn.Linear(10, 10)
        self.turned = nn.Parameter(torch.randn(10, 7) * 0.3)
        self.back = nn.Linear(7, 10)

    def forward(self, input_ids):
        x = torch.tanh(self.layer(self.table(input_ids)))
        x = x + self.back(torch.tanh(x @ self.turned))
        return x @ self.table.weight.T


def odd_program():
    torch.manual_seed(0)
    return capture(Odd().eval(), inputs={"input_ids": torch.randint(0, 31, (2, 6))})
