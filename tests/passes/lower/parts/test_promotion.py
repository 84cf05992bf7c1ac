"""Types are promoted where the exporter computes no shape of its own."""

from unittest.mock import patch

import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.execute import execute
from graphwright.passes.lower.parts import promotion
from pruning import run
from torch import nn
from torch.onnx._internal.fx.passes import type_promotion


class Promoting(nn.Module):
    """Integers meet fractions, a number and a comparison, one after the other."""

    def forward(self, x):
        counts = (x > 0).long().cumsum(1)
        return counts * 0.5 + x / counts.clamp(min=2) + (counts == 3) * x.exp()


def test_types_are_promoted():
    x = torch.randn(3, 7)
    program = capture(Promoting(), inputs={"x": x})
    done = run("to-onnx", program)
    assert done.ok, done.steps[0].error
    (found,) = execute(done.program, [{"x": x.numpy()}])
    torch.testing.assert_close(
        torch.from_numpy(found[program.outputs[0]]), Promoting()(x), rtol=1e-6, atol=1e-6
    )


def test_shapes_of_what_stays_are_not_computed_again():
    interpreter, computed = type_promotion._TypePromotionInterpreter, []

    def counted(self, node):
        computed.append(node.op)
        return run_node(self, node)

    run_node = promotion._run_node
    with patch.object(promotion, "_run_node", counted):
        assert run("to-onnx", zoo.fx_program("nanogpt")).ok
    assert "output" in computed
    assert "call_function" not in computed
    assert interpreter.run_node is run_node  # as it was
