"""quantize-binary: one bit a weight learns too."""

import torch
from graphwright.ir.fx.graph import attribute
from graphwright.passes.manager.contract import Context
from graphwright.passes.quantize.quantize_binary import QuantizeBinary
from odd import odd_program
from recovery import feeds_of


def test_binary_weights_learn():
    odd = odd_program()
    result = QuantizeBinary(steps=25).run(odd.clone(), Context(calibration=feeds_of(odd, 12)))
    assert result.statistics["loss"] < result.statistics["loss before learning"]
    assert attribute(result.program.graph, "turned_scale").dtype == torch.float16
