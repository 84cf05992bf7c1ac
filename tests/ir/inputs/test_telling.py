"""Inputs at which sizes are told apart, and sizes that some lengths don't have."""

import tracemalloc

import torch
from graphwright.ir.capture import capture
from graphwright.ir.inputs.telling import telling
from torch import nn


class Shared(nn.Module):
    """A text's share of its whole blocks of 8, which a text of 5 has none of."""

    def forward(self, x):
        blocks = x.shape[1] // 8
        return x[:, : x.shape[1] // blocks]


def test_a_length_at_which_a_size_is_divided_by_nothing_tells_nothing():
    program = capture(Shared().eval(), inputs={"x": torch.randn(2, 40)})
    (found,) = telling(program).values()
    assert found.shape[1] // 8 > 0


class Patches(nn.Module):
    """High and wide have as many patches at each length that is tried."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x):
        high, wide = x.shape[2] // 8, x.shape[3] // 8
        return self.patches(x).flatten(2) + torch.arange(high * wide)


def test_lengths_are_tried_without_their_images():
    program = capture(Patches().eval(), inputs={"x": torch.randn(2, 3, 24, 24)})
    tracemalloc.start()
    try:
        telling(program)
        assert tracemalloc.get_traced_memory()[1] < 100e6
    finally:
        tracemalloc.stop()
