"""Heads of projections that low-rank adapters add to: why they can't be removed, in words that help."""

import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from torch import nn


class Adapted(nn.Module):
    """A Linear with a low-rank adapter beside it (LoRA, Hu et al., 2021)."""

    def __init__(self, into, out):
        super().__init__()
        self.base, self.down, self.up = nn.Linear(into, out), nn.Linear(into, 2), nn.Linear(2, out)

    def forward(self, x):
        return self.base(x) + 2.0 * self.up(self.down(x))


class Attention(nn.Module):
    """Four heads of queries over two of keys and values."""

    def __init__(self, adapted):
        super().__init__()
        kinds = {name: Adapted if name in adapted else nn.Linear for name in "qkvo"}
        self.q, self.o = kinds["q"](32, 32), kinds["o"](32, 32)
        self.k, self.v = kinds["k"](32, 16), kinds["v"](32, 16)

    def forward(self, x):
        heads = lambda y, n: y.view(*y.shape[:2], n, 8).transpose(1, 2)
        q = heads(self.q(x), 4)
        k, v = (self.repeated(heads(y, 2)) for y in (self.k(x), self.v(x)))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return x + self.o(mixed.transpose(1, 2).flatten(2))

    def repeated(self, y):
        batch, heads, length, size = y.shape
        return y[:, :, None].expand(batch, heads, 2, length, size).reshape(batch, 2 * heads, length, size)


@pytest.mark.parametrize(
    ("adapted", "words"),
    [
        ("v", ("values come from", "adapter must be merged")),
        ("k", ("keys come from", "adapter must be merged")),
        ("qkv", ("merge adapters into weights first",)),
    ],
)
def test_heads_behind_adapters_are_refused_by_their_reason(adapted, words):
    torch.manual_seed(0)
    program = capture(Attention(adapted).eval(), inputs=(torch.randn(2, 5, 32),))
    calibration = [{program.inputs[0].name: torch.randn(2, 5, 32).numpy()}]
    run = Pipeline.parse("prune-heads").run(program, Context(calibration=calibration))
    message = str(run.steps[0].error)
    for word in words:
        assert word in message
    assert "heads of keys but" not in message
