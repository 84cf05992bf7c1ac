"""Heads of something else beside those of an attention (ConvBERT), or added to them (Nystromformer)."""

import functools

import numpy as np
import pytest
import torch
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.ir.agreement import scaled_distance
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.fuse.fuse_attention import FuseAttention
from graphwright.passes.lower.to_onnx import ToOnnx
from graphwright.passes.manager.contract import Context
from graphwright.passes.prune.surgery.units import survey
from torch import nn

WIDTH, HEADS, LENGTH = 12, 3, 6
SIZE = WIDTH // HEADS

# name: (what others are put beside the context (batch, heads, length, size) and all merged, its axes there)
KNOWN = {
    "after the transpose": (lambda c, o: torch.cat([c.mT.mT.transpose(1, 2), o.transpose(1, 2)], 2), "blhd"),
    "before it": (lambda c, o: torch.cat([c, o], 1).transpose(1, 2), "bhld"),
    "the others first": (lambda c, o: torch.cat([o.transpose(1, 2), c.transpose(1, 2)], 2), "blhd"),
    "added": (lambda c, o: (c + o).transpose(1, 2), "bhld"),
    "heads last": (lambda c, o: torch.cat([c.permute(0, 2, 3, 1), o.permute(0, 2, 3, 1)], -1).mT, "bldh"),
}
REFUSED = {
    "along the length": lambda c, o: torch.cat([c, o], 2).transpose(1, 2),
    "along the features": lambda c, o: torch.cat([c, o], 3).transpose(1, 2),
    "along the batch": lambda c, o: torch.cat([c, o], 0).transpose(1, 2),
    "heads in two axes": lambda c, o: torch.cat(
        [x.transpose(1, 2).unflatten(3, (2, 2)) for x in (c, o)], 3
    ),
    "a sum of more heads": lambda c, o: (c.unsqueeze(1) + o.unsqueeze(2)).flatten(1, 2).transpose(1, 2),
    "first and last half of the size swapped": lambda c, o: torch.cat(
        [c.unflatten(3, (2, 2)).transpose(3, 4).flatten(3).transpose(1, 2), o.transpose(1, 2)], 2
    ),
}  # fmt: skip


class Attending(nn.Module):
    def __init__(self, cases):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.other = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.cases = cases

    def forward(self, x):
        q, k, v, other = (
            linear(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2)
            for linear in (self.q, self.k, self.v, self.other)
        )
        # Scaled apart, because equal softmaxes become one on the way to ONNX.
        contexts = [(q @ k.mT * scale).softmax(-1) @ v for scale in range(1, len(self.cases) + 1)]
        return [case(c, other.tanh()).flatten(-2) for case, c in zip(self.cases, contexts, strict=True)]


@functools.cache
def attending(known, dialect):
    cases = [case for case, _ in KNOWN.values()] if known else list(REFUSED.values())
    program = capture(Attending(cases).eval(), inputs={"x": torch.randn(2, LENGTH, WIDTH)})
    return ToOnnx().run(program, Context()).program if dialect == "onnx" else program


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_the_context_is_where_others_are_put_beside_it(dialect):
    found = recognise(view(attending(True, dialect))).attention
    assert [round(each.scale) for each in found] == [1, 2, 3, 4, 5]
    for each, (_, axes) in zip(found, KNOWN.values(), strict=True):
        assert each.root is each.context
        assert each.o is None
        assert (each.heads, each.head_dim) == (HEADS, SIZE)
        assert (each.context.shape[axes.index("h")], each.context.shape[axes.index("d")]) == (HEADS, SIZE)
        assert any(user.op in ("concat", "add") for user in each.context.users)


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_what_joins_no_heads_says_so(dialect):
    blocks = recognise(view(attending(False, dialect)))
    assert blocks.attention == ()
    missed = [miss.reason for miss in blocks.missed if miss.kind == "attention"]
    assert missed == ["the heads are not merged into one axis after the values are weighed"] * len(REFUSED)


def test_a_kernel_gives_heads_back_on_the_axes_where_others_join_them():
    module = Attending([case for case, _ in KNOWN.values()]).eval()
    program = attending(True, "onnx")
    result = FuseAttention().run(program.clone(), Context())
    assert result.statistics == {"attentions fused": f"{len(KNOWN)} of {len(KNOWN)}"}
    x = torch.randn(3, LENGTH, WIDTH, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = [each.numpy() for each in module(x)]
    found = OnnxRuntime().build(result.program).run({"x": x.numpy()})
    for name, reference in zip(program.outputs, wanted, strict=True):
        assert scaled_distance(reference.astype(np.float64), found[name].astype(np.float64)) < 2e-6


def test_pruning_says_what_is_put_beside_the_heads():
    units, missed = survey(attending(True, "fx"))
    assert [each for each in units if each.kind == "heads"] == []
    reasons = [miss.reason for miss in missed if miss.kind == "attention"]
    assert len(reasons) == len(KNOWN)
    added = [reason for reason in reasons if reason.startswith("something is added to its heads ('add")]
    beside = [r for r in reasons if r.startswith("other heads are put beside its own ('cat")]
    assert (len(added), len(beside)) == (1, len(KNOWN) - 1)
