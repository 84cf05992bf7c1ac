"""Attention that the kernel of TVM's plan doesn't fit is computed as the graph says."""

import numpy as np
import pytest
import torch
from graphwright.backends.target import detect
from graphwright.backends.tvm.backend import Tvm
from graphwright.ir.blocks import recognise
from graphwright.ir.capture import capture
from graphwright.ir.view import view
from graphwright.passes.manager.contract import Context
from graphwright.tools.build.presets import chain
from torch import nn

WIDTH, HEADS, SIZE = 32, 2, 16


class Attending(nn.Module):
    """An attention with learned scores beside the keys' (gpt-oss), heads of something else beside its own
    (ConvBERT), or something added to them (Nystromformer)."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.other = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.o = nn.Linear(2 * WIDTH if kind == "beside" else WIDTH, WIDTH)
        self.sinks = nn.Parameter(torch.tensor([2.0, -1.0]).reshape(1, HEADS, 1, 1))
        self.kind = kind

    def forward(self, x):
        q, k, v, other = (
            each(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2)
            for each in (self.q, self.k, self.v, self.other)
        )
        scores = q @ k.mT / 4
        if self.kind == "sinks":
            scores = torch.cat([scores, self.sinks.expand(len(x), -1, scores.shape[-2], -1)], -1)
        weighed = scores.softmax(-1)
        context = (weighed[..., :-1] if self.kind == "sinks" else weighed) @ v
        context = context + other.tanh() if self.kind == "added" else context
        context = torch.cat([context, other], 1) if self.kind == "beside" else context
        return self.o(context.transpose(1, 2).flatten(-2))


@pytest.mark.parametrize("kind", ["sinks", "beside", "added"])
def test_what_the_kernel_lacks_is_computed_all_the_same(kind):
    module, x = Attending(kind).eval(), torch.randn(2, 6, WIDTH, generator=torch.Generator().manual_seed(3))
    program = capture(module, inputs={"x": x})
    assert len(recognise(view(program)).attention) == 1
    lowered = chain("exact", program, "tvm")[0].run(program, Context(target=detect())).program
    sizes = {d: n for d, n in zip(lowered.inputs[0].shape, x.shape, strict=True) if isinstance(d, str)}
    found = Tvm().build(lowered, buckets=[sizes]).run({"x": x.numpy()})
    with torch.no_grad():
        wanted = module(x).numpy()
    np.testing.assert_allclose(found[program.outputs[0]], wanted, atol=2e-6)
