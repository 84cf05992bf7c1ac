"""What is done to scores between the product and the softmax: known, or refused with the reason."""

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

# name: (what becomes of scores s under masks m, scale, cap, whether a mask multiplies, causal)
KNOWN = {
    "capped": (lambda s, m: torch.tanh(s / 3) * 3, 0.5, 3, False, False),
    "capped, then masked": (lambda s, m: torch.tanh(s / 3) * 3 + m.hides, 0.5, 3, False, True),
    "not divided first: a larger scale": (lambda s, m: torch.tanh(s) * 10, 5, 10, False, False),
    "turned over twice": (lambda s, m: torch.tanh(s / -4) * -4, 0.5, 4, False, False),
    "in units of its own": (lambda s, m: torch.tanh(s), 0.5, 1, False, False),
    "multiplied by the mask": (lambda s, m: s * m.kept + m.hides, 0.5, 0, True, True),
    "multiplied, more added": (lambda s, m: m.kept * s + m.hides + m.bias, 0.5, 0, True, True),
    "capped and multiplied": (lambda s, m: torch.tanh(s) * 4 * m.kept + m.hides, 2, 4, True, True),
}
REFUSED = {
    "clipped": (lambda s, m: s.clip(-3, 3), "the scores come from clip"),
    "another function": (lambda s, m: torch.atan(s / 3) * 3, "tan"),
    "no cap": (lambda s, m: torch.sigmoid(s / 3) * 3, "the scores come from sigmoid"),
    "masked too early": (lambda s, m: torch.tanh((s + m.hides) / 5) * 5, "(add) before they are capped"),
    "chosen too early": (
        lambda s, m: torch.tanh(s.masked_fill(m.kept == 0, -1e9)) * 3,
        "(where) before they are capped",
    ),
    "capped twice": (lambda s, m: torch.tanh(torch.tanh(s) * 2) * 3, "the scores come from tanh"),
    "a cap for each head": (lambda s, m: torch.tanh(s) * m.heads, "multiplied by what is no mask"),
    "nothing hidden": (lambda s, m: s * m.kept, "multiplied by what is no mask"),
    "another hidden": (lambda s, m: s * m.kept.mT + m.hides, "multiplied by what is no mask"),
    "no ones": (lambda s, m: s * m.doubled + m.hides, "multiplied by what is no mask"),
    "hidden too early": (lambda s, m: (s + m.hides) * m.kept, "(add) before they are multiplied by a mask"),
}


class Attending(nn.Module):
    """One attention a case, over the same queries, keys and values."""

    def __init__(self, cases):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        kept = torch.ones(LENGTH, LENGTH).tril()
        self.register_buffer("kept", kept)
        self.register_buffer("doubled", kept * 2)
        self.register_buffer("hides", (1 - kept) * -1e4)
        self.register_buffer("bias", torch.linspace(-1, 1, LENGTH))
        self.register_buffer("heads", torch.tensor([0.5, 1.0, 2.0])[:, None, None])
        self.cases = cases

    def forward(self, x):
        q, k, v = (
            linear(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        contexts = [case[0](q @ k.mT / 2, self).softmax(-1) @ v for case in self.cases]
        return [self.o(context.transpose(1, 2).flatten(-2)) for context in contexts]


@functools.cache
def attending(known, dialect):
    """(blocks, the values that the cases end in, in their order)."""
    module = Attending(list((KNOWN if known else REFUSED).values())).eval()
    program = capture(module, inputs={"x": torch.randn(2, LENGTH, WIDTH)})
    program = ToOnnx().run(program, Context()).program if dialect == "onnx" else program
    seen = view(program)
    return recognise(seen), list(seen.outputs)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
@pytest.mark.parametrize("case", KNOWN)
def test_a_change_that_is_known(case, dialect):
    blocks, roots = attending(True, dialect)
    _, scale, cap, gated, causal = KNOWN[case]
    (found,) = [each for each in blocks.attention if each.root == roots[list(KNOWN).index(case)]]
    assert found.scale == pytest.approx(scale, rel=1e-6)
    assert found.softcap == pytest.approx(cap, rel=1e-6)
    assert (found.gate is not None, found.causal) == (gated, causal)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_a_change_that_is_not_known_says_so(dialect):
    blocks, _ = attending(False, dialect)
    assert blocks.attention == ()
    missed = [miss.reason for miss in blocks.missed if miss.kind == "attention"]
    wanted = [reason for _, reason in REFUSED.values()]
    assert [reason in given for reason, given in zip(wanted, missed, strict=True)] == [True] * len(wanted), (
        missed
    )
