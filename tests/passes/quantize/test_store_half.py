"""store-half: outputs are those of rounded weights, bytes are half, and what does not fit says so."""

import ml_dtypes
import numpy as np
import pytest
from fusing import same
from graphwright.ir.footprint import weight_bytes
from graphwright.passes.canonical.fold_constants import FoldConstants
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.store_half import StoreHalf
from handmade import operators, parsed
from zoo import onnx_program

RNG = np.random.default_rng(0)
TYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def rounded(program, dtype):
    """The same program, its matrices rounded to the type and back."""
    import onnx_ir

    twin = program.clone()
    for value in twin.graph.graph.initializers.values():
        tensor = value.const_value
        if (
            tensor.dtype == onnx_ir.DataType.FLOAT
            and len(tensor.shape) == 2
            and min(tensor.shape.numpy()) > 15
        ):
            array = tensor.numpy().astype(dtype).astype(np.float32)
            value.const_value = onnx_ir.Tensor(array, name=value.name)
    return twin


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", ["bert", "gpt2", "albert"])
def test_outputs_are_those_of_rounded_weights(name, kind):
    program = onnx_program(name)
    found = StoreHalf(type=kind).run(program.clone(), Context())
    assert found.modified
    same(rounded(program, TYPES[kind]), found.program, 1e-6)
    before, after = weight_bytes(program), weight_bytes(found.program)
    matrices = sum(v.const_value.nbytes for v in found.program.graph.graph.initializers.values()
                   if v.const_value.dtype.name.lower() == kind)  # fmt: skip
    assert matrices == before - after
    assert after < 0.75 * before


def embedded(table):
    return parsed(
        "e = Gather (table, ids) y = MatMul (e, w)",
        "int64[batch,length] ids",
        "float[batch,length,32] y",
        {"table": table, "w": RNG.standard_normal((16, 32)).astype(np.float32)},
        high=20,
    )


def test_rows_are_looked_up_in_sixteen_bits_and_whole_weights_cast():
    table = RNG.standard_normal((20, 16)).astype(np.float32)
    found = StoreHalf().run(embedded(table), Context()).program
    assert operators(found) == ["Gather", "Cast", "Cast", "MatMul"]
    run = Pipeline([FoldConstants()]).run(found)
    assert operators(run.program) == ["Gather", "Cast", "Cast", "MatMul"]  # the cast back is not folded


def test_what_float16_cannot_hold_stays():
    table = RNG.standard_normal((20, 16)).astype(np.float32)
    table[3, 4] = 7e4
    found = StoreHalf().run(embedded(table), Context())
    assert found.statistics == {"weights in float16": "1 of 2"}
    assert "table: stays in float32, it has a weight of 7e+04 and float16 ends at 65504" in found.notes
    assert StoreHalf(type="bfloat16").run(embedded(table), Context()).statistics == {
        "weights in bfloat16": "2 of 2"
    }


def test_a_second_run_finds_nothing_left():
    once = StoreHalf().run(embedded(RNG.standard_normal((20, 16)).astype(np.float32)), Context()).program
    again = StoreHalf().run(once.clone(), Context())
    assert not again.modified
