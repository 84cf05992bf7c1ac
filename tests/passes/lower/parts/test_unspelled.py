"""Expressions that torch's exporter has no spelling of, or a wrong one: lowered, and equal to eager."""

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.passes.lower.parts.registry import torchlib
from graphwright.passes.lower.to_onnx import OPSET
from graphwright.passes.manager.pipeline import Pipeline
from modules import Small, floats
from torch.onnx._internal.exporter._registration import ONNXRegistry

EXPRESSIONS = {
    "a float less integers": lambda x, m: x + (1.0 - m)[..., None] * -1e4,
    "an integer less integers": lambda x, m: x + (1 - m)[..., None],
    "a multiple taken away": lambda x, m: x + torch.rsub(m, 0.5, alpha=2)[..., None],
    "a fraction counted up to a size": lambda x, m: x + torch.arange(0.5, x.shape[1])[None, :, None],
    "by steps of a fraction": lambda x, m: x + torch.arange(0, 0.5 * x.shape[1], 0.5)[None, :, None],
    "down to zero": lambda x, m: x + torch.arange(x.shape[1], 0, -1)[None, :, None],
    "the largest and the least of all": lambda x, m: x * m.amax() + x.amin() - x.amax(keepdim=True),
    "one of some": lambda x, m: x * torch.isin(m, torch.tensor([0, 3, 7]))[..., None],
    "none of some": lambda x, m: x * torch.isin(m, torch.tensor([[0], [3]]), invert=True)[..., None],
    "each of itself": lambda x, m: x * torch.isin(m, m)[..., None],
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_what_the_exporter_does_not_spell_is_spelled(name):
    module = Small(lambda self, x, m: EXPRESSIONS[name](self.linear(x), m))
    counted = torch.arange(22).reshape(2, 11) % 5
    program = Pipeline.parse("to-onnx").run(capture(module, inputs=[floats(2, 11, 4), counted])).program
    assert program.inputs[0].shape == ("batch", "length", 4)
    _agrees(program, module.forward.__func__)


def _lowered(forward, monkeypatch):
    """(program, how often torch's exporter traced it again)"""
    traced = []
    again = torch.export.ExportedProgram.run_decompositions
    captured = capture(Small(forward), inputs=[floats(2, 11, 4), torch.arange(22).reshape(2, 11) % 5])
    monkeypatch.setattr(
        torch.export.ExportedProgram, "run_decompositions", lambda *a: traced.append(1) or again(*a)
    )
    return Pipeline.parse("to-onnx").run(captured).program, len(traced)


def _plain(self, x, m):
    """What torch's decomposition only spells otherwise."""
    y = self.linear(x).transpose(1, 2).contiguous().reshape(x.shape[0], x.shape[1], 2, 2)
    seen = (m > 1) & (m < 4) | (m == 0)
    y = torch.min(y, y.new_ones(1)).broadcast_to(y.shape) * seen.to(torch.float32)[..., None, None]
    a, b = torch.max(y, y * 0.5).flatten(-2).chunk(2, dim=-1)  # (batch, length, 2) each
    b = b.sum(0).expand_as(b) + a.expand_as(a)
    z = torch.cat([b.square(), a], -1).unflatten(-1, (2, -1)).flatten(0, 1)
    return z.unflatten(0, (x.shape[0], -1)).flatten(2)


def test_what_the_exporter_spells_as_it_is_is_not_traced_again(monkeypatch):
    program, traced = _lowered(_plain, monkeypatch)
    assert traced == 0
    reshapes = [n for n in program.graph.graph if n.op_type == "Reshape" and n.inputs[1].const_value is None]
    assert reshapes
    assert all(node.attributes.get_int("allowzero", 0) == 1 for node in reshapes), "no rows stay no rows"
    _agrees(program, _plain)


def test_what_needs_torchs_decomposition_gets_it(monkeypatch):
    def forward(self, x, m):
        return self.linear(x).movedim(1, 2).mT + m[..., None]

    program, traced = _lowered(forward, monkeypatch)
    assert traced == 1
    _agrees(program, forward)


def test_the_exporters_table_is_read_once_and_left_as_it_was(monkeypatch):
    known = torchlib(OPSET)
    before = {target: list(found) for target, found in known.functions.items()}
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", None)
    _lowered(
        lambda self, x, m: self.linear(x).reshape(-1)[torch.sort(m.reshape(-1), stable=True)[1]], monkeypatch
    )
    assert known.functions == before


@pytest.mark.parametrize(
    "last",
    [
        lambda x, m: (x.to(torch.float32),),  # as OLMo ends
        lambda x, m: (torch.isin(x.sum(2).long() % 3 + m, torch.tensor([0, 3])),),
        lambda x, m: (x.to(torch.float32), x.type_as(x), torch.max(x, -x)),
    ],
    ids=["a cast to what it is", "an operator of several", "one node for two outputs"],
)
def test_an_output_that_goes_away_is_one_still(last, monkeypatch):
    def forward(self, x, m):
        return last(self.linear(x), m)

    program, _ = _lowered(forward, monkeypatch)
    _agrees(program, forward)


def _agrees(program, forward):
    assert program.dialect == "onnx"
    x, m = floats(3, 7, 4, seed=1), torch.arange(21).reshape(3, 7) % 9
    with torch.no_grad():
        wanted = Small(forward)(x, m)
    feed = dict(zip([spec.name for spec in program.inputs], [x.numpy(), m.numpy()], strict=True))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for found, eager in zip(execute(program, [feed])[0].values(), wanted, strict=True):
        assert found.dtype == eager.numpy().dtype
        np.testing.assert_allclose(found, eager.numpy(), rtol=1e-6, atol=1e-6)
