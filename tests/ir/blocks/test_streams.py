"""Scores of two products: those whose keys are projected from what the values are, the others a term."""

import functools

import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from torch import nn

WIDTH, HEADS = 12, 3


class Streams(nn.Module):
    """Tokens x beside places y (LiLT); one stream's values, and the scores of `keys`' two products."""

    def __init__(self, first, second, values):
        super().__init__()
        torch.manual_seed(0)
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.o = nn.Linear(WIDTH, WIDTH)
        self.first, self.second, self.values = first, second, values

    def forward(self, x, y):
        streams = {"x": x, "y": y}
        names = (self.first, self.first, self.second, self.second, self.values)
        q, k, r, s, v = (
            linear(streams[name]).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for linear, name in zip(self.linears, names, strict=True)
        )
        scores = q @ k.mT / 2 + r @ s.mT / 4
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))


@functools.cache
def blocks(names, dialect):
    example = {"x": torch.randn(4, 7, WIDTH), "y": torch.randn(4, 7, WIDTH)}
    program = capture(Streams(*names).eval(), inputs=example)
    program = ToOnnx().run(program, Context()).program if dialect == "onnx" else program
    return recognise(view(program))


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize(("names", "scale"), [("xyx", 0.5), ("xyy", 0.25), ("yxx", 0.25)])
def test_the_keys_beside_the_values_tell_which(names, scale, dialect):
    (found,) = blocks(names, dialect).attention
    assert found.scale == pytest.approx(scale)
    assert found.k.input == found.v.input
    assert len(found.terms) == 1
    assert found.relative_bias is not None
    assert len(found.products) == 1


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("names", ["xxx", "xxy"])
def test_where_both_or_none_do_it_is_not_told(names, dialect):
    found = blocks(names, dialect)
    assert found.attention == ()
    assert [m.reason for m in found.missed if m.kind == "attention"] == [
        "the scores add two products, and which is query·key^T cannot be told"
    ]
