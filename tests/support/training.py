"""Small things that tests of quantization-aware training share."""

from __future__ import annotations

import copy

import torch
from graphwright.ir.capture import capture
from graphwright.ir.fx.graph import attribute
from graphwright.ir.inputs.probe import probes
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.fake_quant import FakeQuant
from torch import nn

FAKE = ("fake_quantize", "_fake_quantize")


class Linear(nn.Module):
    """y = W x + b, with weights that no two rows of have one largest magnitude."""

    def __init__(self, inputs=24, outputs=5, bias=True):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        with torch.no_grad():
            self.linear.weight.mul_(torch.linspace(0.5, 4, outputs)[:, None])

    def forward(self, x):
        return self.linear(x)


def linear_program(inputs=24, outputs=5, bias=True):
    return capture(Linear(inputs, outputs, bias), inputs=(torch.randn(4, 7, inputs),))


def calibrated(program, seed=7, **settings):
    """A context with a few feeds."""
    return Context(calibration=probes(program, seed), **settings)


def fake_quantized(program, context=None, **options):
    """The result of fake-quant on a copy with weights of its own."""
    own = program.with_graph(copy.deepcopy(program.graph))
    return FakeQuant(**options).run(own, context or calibrated(program))


def fakes(program):
    """The fake-quantize nodes, (weights, activations)."""
    found = [
        node
        for node in program.graph.graph.nodes
        if node.op == "call_function" and "fake_quantize" in str(node.target)
    ]
    weights = [node for node in found if node.args[0].op == "get_attr"]
    return weights, [node for node in found if node not in weights]


def arguments(program, feed):
    return [torch.from_numpy(feed[spec.name]) for spec in program.inputs]


def tensor(program, node):
    """What a get_attr node reads, as a NumPy array."""
    return attribute(program.graph, str(node.target)).detach().numpy()
