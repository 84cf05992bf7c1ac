"""What writes into its operands is written anew: here where one tensor is concerned, else by torch."""

import numpy as np
import pytest
import torch
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.ir.fx.functional import mutates
from modules import Small, floats


def chained(self, x):
    y = self.linear(x)
    y.add_(x).mul_(2.0)
    y += 1
    return y * 1.5 + y


def masked(self, x):
    y = torch.zeros_like(x)
    y.masked_fill_(x > 0, -3.0)
    return self.linear(x) + y


def seen_later(self, x):
    y = self.linear(x)
    z = y * 2
    y.mul_(3)
    return y + z


def looked_at_before(self, x):
    y = self.linear(x)
    seen = y.transpose(0, 1)
    y.add_(1)
    return seen.sum(0) + y.sum(1)


def looked_at_between(self, x):
    y = self.linear(x)
    y.add_(1)
    seen = y[:, 1:]
    y.mul_(2)
    return seen * 2


def a_part(self, x):
    y = self.linear(x)
    y[:, 0].mul_(5)
    return y * 1.0


def of_a_narrower_type(self, x):
    y = torch.ones_like(x, dtype=torch.int32)
    y.add_((x > 1).to(torch.int64))
    return y * 3


def given_out(self, x):
    y = self.linear(x)
    y.add_(x)
    return y


CASES = {
    chained: True, masked: True, seen_later: True, given_out: True,
    looked_at_before: False, looked_at_between: False, a_part: False, of_a_narrower_type: False,
}  # fmt: skip


@pytest.mark.parametrize("forward", CASES, ids=lambda each: each.__name__)
def test_writes_are_written_anew(forward, monkeypatch):
    module, traced = Small(forward), []
    again = torch.export.ExportedProgram.run_decompositions
    monkeypatch.setattr(
        torch.export.ExportedProgram, "run_decompositions", lambda *a: traced.append(1) or again(*a)
    )
    program = capture(module, inputs=[floats(2, 11, 4)])
    assert not any(mutates(node) for node in program.graph.graph.nodes)
    assert (not traced) == CASES[forward], "torch traces again just where other tensors may be concerned"
    x = floats(3, 7, 4, seed=1)
    with torch.no_grad():
        wanted = module(x.clone()).numpy()
    (found,) = execute(program, [{program.inputs[0].name: x.numpy()}])[0].values()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)
