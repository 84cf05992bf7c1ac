"""A program in float32 is held to its tolerance, or where its own last bits carry further, to those."""

import numpy as np
import pytest
import torch
from fusing import weights
from graphwright.ir.agreement import scaled_distance
from graphwright.ir.capture import capture
from graphwright.ir.errors import ContractError
from graphwright.ir.execute import execute
from graphwright.ir.last_bits import jittered
from graphwright.passes.manager.contract import Exact
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.verify import Verifier
from handmade import parsed
from torch import nn

GAIN = 3000.0


class Loud(nn.Module):
    """Large numbers, some of which are near 0 by cancellation, as logits are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))
        self.logits = nn.Linear(64, 4096)

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.tanh(layer(x))
        return GAIN * self.logits(x)


def loud():
    return capture(Loud().eval(), inputs={"x": torch.randn(2, 5, 64)})


def test_what_rounding_alone_moves_further_than_the_tolerance_is_lowered():
    program = loud()
    done = Pipeline.parse("to-onnx").run(program)
    assert done.ok, done.steps[0].error
    x = {"x": np.random.default_rng(0).standard_normal((2, 5, 64), np.float32)}
    a, b = (execute(each, [x])[0][program.outputs[0]] for each in (program, done.program))
    assert 1e-4 < scaled_distance(a, b) < 1e-1


@pytest.mark.parametrize("factor", [1.001, 2.0])
def test_more_than_rounding_is_not_excused(factor):
    program = loud()
    after = program.clone()
    (scaled,) = [node for node in after.graph.graph.nodes if GAIN in node.args]
    scaled.args = (scaled.args[0], GAIN * factor)
    after.graph.recompile()
    with pytest.raises(ContractError, match=r"moved by .* \(limit "):
        Verifier().check(program, after, Exact())


@pytest.mark.parametrize("dialect", ["fx", "onnx"])
def test_matrices_move_by_a_unit_in_the_last_place_and_nothing_else_does(dialect):
    if dialect == "fx":
        program = loud()
        held = lambda each: {n: t.detach().numpy() for n, t in each.graph.state_dict().items()}
    else:
        values = weights(w=(64, 64)) | {"b": np.float32([1, 2]), "i": np.ones((2, 2), np.int64)}
        program = parsed("y = MatMul (x, w)", "float[batch,64] x", "float[batch,64] y", values)
        held = lambda each: {n: v.const_value.numpy() for n, v in each.graph.graph.initializers.items()}
    before = {name: array.copy() for name, array in held(program).items()}
    moved = held(jittered(program))
    assert sorted(moved) == sorted(before)
    for name, array in moved.items():
        old = before[name]
        np.testing.assert_array_equal(held(program)[name], old)
        if array.dtype == np.float32 and array.ndim > 1:
            assert 0.4 < (array != old).mean() < 0.6
            assert set(np.unique((np.abs(old) - np.abs(array)) / np.spacing(np.abs(array)))) <= {0.0, 1.0}
        else:
            np.testing.assert_array_equal(array, old)
