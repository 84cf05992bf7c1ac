"""keep-residual-sum: sums that ONNX Runtime fuses into its slower kernel are written so that it does not."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from fusing import fused, weights
from graphwright.passes.fuse.keep_residual_sum import KeepResidualSum
from graphwright.passes.manager.contract import Context
from handmade import before_and_after, golden, operators, parsed

TOLERANCE = 0
CONSTANTS = weights(w=(8,), b=(8,), bias=(8,), matrix=(8, 8), row=(1, 8))
TWO = "float[batch,length,8] x, float[batch,length,8] z"
NORM = "y = LayerNormalization<axis = -1>(t, w, b)"
BIASED = f"p = MatMul(x, matrix) a = Add(p, bias) t = Add(a, z) {NORM}"


def program(body, inputs=TWO, outputs="float[batch,length,8] y"):
    return parsed(body, inputs, outputs, CONSTANTS)


def optimised(program, path):
    """The operators that ONNX Runtime runs, at its highest level."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    proto = onnx_ir.to_proto(program.graph).SerializeToString()
    onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return {node.op_type for node in onnx_ir.load(path).graph}


def test_onnx_runtime_leaves_the_sum_alone(tmp_path):
    before = program(BIASED)
    result = fused(KeepResidualSum(), before, TOLERANCE)
    assert operators(result.program) == ["MatMul", "Add", "Sum", "LayerNormalization"]
    assert dict(result.statistics) == {"residual sums kept": "1 of 1 norms"}
    assert "SkipLayerNormalization" in optimised(before, tmp_path / "before.onnx")
    assert "SkipLayerNormalization" not in optimised(result.program, tmp_path / "after.onnx")


def test_golden():
    before = program(BIASED)
    after = KeepResidualSum().run(before.clone(), Context()).program
    golden("fuse/keep-residual-sum", before_and_after(before, after))


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        (
            f"t = Add(x, bias) {NORM}",
            "float[batch,length,8] x",
            "it normalises no Add of two computed values",
        ),
        (f"t = Relu(x) {NORM}", "float[batch,length,8] x", "it normalises no Add of two computed values"),
        (
            f"t = Add(x, z) {NORM}",
            "float[batch,length,8] x, float[1,length,8] z",
            "the sides of its sum are not known to have one shape",
        ),
    ],
)
def test_other_norms_stay_and_say_why(body, inputs, reason):
    result = fused(KeepResidualSum(), program(body, inputs), TOLERANCE)
    assert not result.modified
    assert result.notes == (f"y: {reason}",)


def test_no_norm_at_all():
    result = KeepResidualSum().run(parsed("y = Relu(x)"), Context())
    assert dict(result.statistics) == {"residual sums kept": "0 of 0 norms"}
    assert not result.modified
    assert np.array_equal(operators(result.program), ["Relu"])
