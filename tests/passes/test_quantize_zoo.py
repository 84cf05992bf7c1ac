"""quantize-dynamic over the zoo: products put in int8, and what is said of the rest."""

import numpy as np
import pytest
from graphwright.backends.target import named
from graphwright.ir.execute import execute
from graphwright.ir.probe import probes
from graphwright.passes.base import Context
from graphwright.passes.quantize.dynamic import QuantizeDynamic
from zoo import ARCHITECTURES, onnx_program

pytestmark = pytest.mark.slow  # most of it the export of the zoo

# linears by the model code (2 layers each): q, k, v, o, up, (gate,) down; heads, poolers, projections
LINEARS = {
    "bert": 12,
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_linear_is_in_int8_or_has_its_reason(name):
    program = onnx_program(name)
    result = QuantizeDynamic(min_cosine=0.0).run(program.clone(), Context(target=named("x86-64-avx2")))
    print(name, dict(result.statistics), result.notes)
    feeds = probes(program, 0)
    for expected, found in zip(execute(program, feeds), execute(result.program, feeds), strict=True):
        for output in program.outputs:
            assert found[output].shape == expected[output].shape
            assert np.isfinite(found[output]).all() == np.isfinite(expected[output]).all()
