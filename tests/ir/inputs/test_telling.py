"""Inputs at which sizes are told apart, and sizes that some lengths don't have."""

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
