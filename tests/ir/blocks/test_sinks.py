"""Learned scores beside the keys', which take up probability and weigh no values."""

import functools

import pytest
import torch
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from torch import nn

WIDTH, HEADS, LENGTH = 12, 3, 8


def beside(s, sinks):
    return torch.cat([s, sinks.expand(s.shape[0], -1, s.shape[-2], -1)], -1)


def before(s, sinks):
    return torch.cat([sinks.expand(s.shape[0], -1, s.shape[-2], -1), s], -1)


def steady(s):
    return s - s.max(-1, keepdim=True).values


# name: the context that (scores, values, module) give
KNOWN = {
    "one a head": lambda s, v, m: beside(s, m.one).softmax(-1)[..., :-1] @ v,
    "the largest taken away first": lambda s, v, m: steady(beside(s, m.one)).softmax(-1)[..., :-1] @ v,
    "two a head": lambda s, v, m: beside(s + m.bias, m.two).softmax(-1)[..., :-2] @ v,
    "cut at the keys' count": lambda s, v, m: beside(s, m.one).softmax(-1)[..., : s.shape[-1]] @ v,
}
REFUSED = {
    "all weigh values": (
        lambda s, v, m: beside(s, m.one).softmax(-1) @ m.longer(v),
        "the probabilities of learned scores weigh values, too",
    ),
    "one too few left out": (
        lambda s, v, m: beside(s, m.two).softmax(-1)[..., :-1] @ m.longer(v),
        "what is left out after the softmax are not the learned scores",
    ),
    "the first left out": (
        lambda s, v, m: beside(s, m.one).softmax(-1)[..., 1:] @ v,
        "what is left out after the softmax are not the learned scores",
    ),
    "before the keys": (
        lambda s, v, m: before(s, m.one).softmax(-1)[..., 1:] @ v,
        "learned scores stand before those of the keys",
    ),
    "keys left out": (
        lambda s, v, m: s.softmax(-1)[..., :-1] @ v[..., :-1, :],
        "some keys are left out after the softmax",
    ),
    "a number of each key taken away": (
        lambda s, v, m: (beside(s, m.one) - m.columns).softmax(-1)[..., :-1] @ v,
        "some keys are left out after the softmax",
    ),
    "the largest of each key taken away": (
        lambda s, v, m: (t := beside(s, m.one)).sub(t.amax(-2, keepdim=True)).softmax(-1)[..., :-1] @ v,
        "some keys are left out after the softmax",
    ),
    "two products": (
        lambda s, v, m: torch.cat([s, s.mT], -1).softmax(-1)[..., :LENGTH] @ v,
        "two sets of keys side by side",
    ),
}  # fmt: skip


class Attending(nn.Module):
    def __init__(self, cases):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.one = nn.Parameter(torch.randn(1, HEADS, 1, 1))
        self.two = nn.Parameter(torch.randn(1, HEADS, 1, 2))
        self.bias = nn.Parameter(torch.randn(LENGTH))
        self.columns = nn.Parameter(torch.randn(LENGTH + 1))
        self.cases = cases

    def longer(self, v):
        return torch.cat([v, v[..., :1, :]], -2)

    def forward(self, x):
        q, k, v = (
            linear(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        # Scaled apart, because equal softmaxes become one on the way to ONNX.
        contexts = [case(q @ k.mT * scale, v, self) for scale, case in enumerate(self.cases, 1)]
        return [self.o(context.transpose(1, 2).flatten(-2)) for context in contexts]


@functools.cache
def attending(known, dialect):
    """(blocks, the values that the cases end in, in their order)."""
    cases = list(KNOWN.values()) if known else [case for case, _ in REFUSED.values()]
    program = capture(Attending(cases).eval(), inputs={"x": torch.randn(2, LENGTH, WIDTH)})
    program = ToOnnx().run(program, Context()).program if dialect == "onnx" else program
    seen = view(program)
    return recognise(seen), list(seen.outputs)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("case", KNOWN)
def test_sinks_are_no_keys(case, dialect):
    blocks, roots = attending(True, dialect)
    number = list(KNOWN).index(case)
    (found,) = [each for each in blocks.attention if each.root == roots[number]]
    assert found.sinks is not None
    assert found.sinks.shape[-1] == (2 if "two" in case else 1)
    assert (found.heads, found.scale, found.causal) == (HEADS, pytest.approx(number + 1), False)
    assert len(found.terms) == ("two" in case)
    assert found.probabilities.shape[-1] == LENGTH + found.sinks.shape[-1]


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("number", range(len(REFUSED)), ids=list(REFUSED))
def test_what_are_no_sinks_says_so(number, dialect):
    blocks, _ = attending(False, dialect)
    assert blocks.attention == ()
    missed = [miss.reason for miss in blocks.missed if miss.kind == "attention"]
    assert len(missed) == len(REFUSED)
    assert list(REFUSED.values())[number][1] in missed[number], missed
