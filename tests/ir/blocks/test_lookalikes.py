"""What looks like a block and is none is not found, and where it came close the reason is given."""

import functools

import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from torch import nn
from torch.nn import functional as F  # noqa: N812

WIDTH, HEADS = 12, 3


def split(x):
    return x.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)


def merge(x):
    return x.transpose(1, 2).flatten(-2)


class Attentions(nn.Module):
    """Every output is one near attention."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.experts = nn.Linear(WIDTH, 5)
        self.table = nn.Parameter(torch.randn(5, WIDTH))

    def forward(self, x):
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        scores = q @ k.mT / 2
        return {
            "over_queries": self.o(merge(scores.softmax(-2) @ v)),
            "no_values": (scores + 1).softmax(-1),
            "gated_after": self.o(merge((scores + 2).softmax(-1) * q.mean() @ v)),
            "sigmoid": self.o(merge((scores + 3).sigmoid() @ v)),
            "linear": self.o(merge(F.elu(q) @ (k.mT @ v))),
            "mixture": self.experts(x).softmax(-1) @ self.table,
            "heads_swapped": self.o(((scores + 4).softmax(-1) @ v).permute(0, 2, 3, 1).flatten(-2)),
            "classes": self.experts(x).softmax(-1),
        }


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.rand(WIDTH) + 0.5)
        self.batch = nn.BatchNorm1d(WIDTH)
        self.group = nn.GroupNorm(HEADS, WIDTH)

    def forward(self, x, y):
        centred = x - x.mean(-1, keepdim=True)
        return {
            "unbiased": centred * torch.rsqrt(x.var(-1, keepdim=True) + 1e-5) * self.weight,
            "other_axis": (x - x.mean(1, keepdim=True))
            * torch.rsqrt(x.var(1, keepdim=True, correction=0) + 1e-5),
            "unit": F.normalize(x, dim=-1),
            "summed": x * torch.rsqrt((x * x).sum(-1, keepdim=True) + 1e-5),
            "of_another": x * torch.rsqrt((y * y).mean(-1, keepdim=True) + 1e-5) * self.weight,
            "half_centred": x * torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-5),
            "no_epsilon": x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True)),
            "centred_only": centred * self.weight,
            "cubed": x * torch.rsqrt(x.pow(3).mean(-1, keepdim=True).abs() + 1e-5),
            "batch": self.batch(x.mT).mT,
            "group": self.group(x.mT).mT,
            "both_axes": F.layer_norm(x.reshape(-1, 2, WIDTH), (2, WIDTH)),
        }


class FeedForwards(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(WIDTH, 20), nn.Linear(20, WIDTH), nn.Linear(WIDTH, 20)

    def forward(self, x, y):
        return {
            "no_activation": self.b(self.a(x)),
            "sine": self.b(torch.sin(self.a(x))),
            "softmax": self.b(self.a(x).softmax(-1)),
            "two_streams": self.b(F.gelu(self.a(x)) * torch.tanh(self.c(y)) * 3),
            "activation_alone": F.gelu(self.a(x)),
            "mean": self.b(F.gelu(self.a(x).mean(1, keepdim=True))),
        }


class Embeddings(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, ids):
        table = self.project(x)[0]
        return {"computed_table": F.relu(table)[ids], "one_hot": F.one_hot(ids, 9).float() @ x[0, :1, :9].mT}


def tensors(*names):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(2, 8, WIDTH, generator=generator) for name in names}


MODELS = {
    "attention": (Attentions, tensors("x")),
    "norm": (Norms, tensors("x", "y")),
    "feed_forward": (FeedForwards, tensors("x", "y")),
    "embedding": (Embeddings, {**tensors("x"), "ids": torch.tensor([[0, 2, 1], [1, 1, 0]])}),
}


@functools.cache
def blocks(kind, dialect):
    make, inputs = MODELS[kind]
    program = capture(make().eval(), inputs=inputs)
    if dialect == "onnx":
        program = ToOnnx().run(program, Context()).program
    return recognise(view(program))


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("kind", MODELS)
def test_nothing_is_taken_for_what_it_is_not(kind, dialect):
    found = blocks(kind, dialect)
    assert [str(block) for block in getattr(found, kind)] == []


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("attention", "softmax over axis 2, not over the keys"),
        ("attention", "its probabilities weigh no values"),
        ("attention", "the probabilities are changed after the softmax (mul)"),
        ("attention", "the heads are merged in another order than they were split"),
        ("norm", "by the root mean square of 'y'"),
        ("norm", "not over the last alone"),
        ("norm", "without an epsilon inside the root"),
        ("feed_forward", "the activation is none that is known"),
    ],
)
def test_what_came_close_says_why_it_was_not_taken(kind, reason, dialect):
    missed = [miss for miss in blocks(kind, dialect).missed if miss.kind == kind]
    assert any(reason in miss.reason for miss in missed), missed
    assert all(miss.node for miss in missed)
