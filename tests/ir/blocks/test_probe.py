"""Learned queries (a pooling head's probe) attend as computed ones do; a matrix is no query."""

import functools

import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from torch import nn

WIDTH, HEADS, QUERIES = 12, 3, 2


class Torch(nn.Module):
    """nn.MultiheadAttention over a probe that is repeated for every row (SigLIP)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.probe = nn.Parameter(torch.randn(1, QUERIES, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x):
        return self.attention(self.probe.repeat(len(x), 1, 1), x, x)[0]


class Written(nn.Module):
    """The same by hand; the query is projected, and broadcast by the product."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.probe = nn.Parameter(torch.randn(1, QUERIES, WIDTH))
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x):
        q, k, v = (
            linear(y).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for linear, y in ((self.q, self.probe), (self.k, x), (self.v, x))
        )
        return self.o(((q @ k.mT / 2).softmax(-1) @ v).transpose(1, 2).flatten(-2))


class Mixture(nn.Module):
    """Rows of a matrix against every token: weights, and no queries."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.rows, self.k = nn.Parameter(torch.randn(QUERIES, WIDTH)), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return (self.rows @ self.k(x).mT).softmax(-1) @ x


@functools.cache
def blocks(kind, dialect):
    program = capture(kind().eval(), inputs={"x": torch.randn(4, 7, WIDTH)})
    program = ToOnnx().run(program, Context()).program if dialect == "onnx" else program
    return recognise(view(program))


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("kind", [Torch, Written])
def test_a_learned_query_attends(kind, dialect):
    (found,) = blocks(kind, dialect).attention
    assert found.q is None
    assert None not in (found.k, found.v, found.o)
    assert (found.heads, found.head_dim, found.cross) == (HEADS, WIDTH // HEADS, True)
    assert found.scale == pytest.approx(0.5)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_a_matrix_is_no_query(dialect):
    found = blocks(Mixture, dialect)
    assert found.attention == ()
    assert [m.reason for m in found.missed if m.kind == "attention"] == [
        "the scores come from matmul, not from query·key^T"
    ]
