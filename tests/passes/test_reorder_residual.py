"""reorder-residual: sums that ONNX Runtime fuses into its slower kernel are written so that it does not."""

import numpy as np
import onnx_ir
import onnxruntime
import pytest
from fusing import fused, weights
from graphwright.passes.base import Context
from graphwright.passes.fuse.residual import ReorderResidual
from handmade import before_and_after, golden, operators, parsed

TOLERANCE = 1e-6  # one sum taken in another order
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


@pytest.mark.parametrize(
    "body", [BIASED, BIASED.replace("Add(a, z)", "Add(z, a)"), BIASED.replace("Add(p, bias)", "Add(bias, p)")]
)
def test_the_bias_is_added_last(body, tmp_path):
    before = program(body)
    result = fused(ReorderResidual(), before, TOLERANCE)
    assert operators(result.program) == ["MatMul", "Add", "Add", "LayerNormalization"]
    first, second = list(result.program.graph.graph)[1:3]
    assert {value.name for value in first.inputs} == {"p", "z"}
    assert second.inputs[1].name == "bias"
    assert dict(result.statistics) == {"residuals reordered": "1 of 1 norms"}
    assert "SkipLayerNormalization" in optimised(before, tmp_path / "before.onnx")
    assert "SkipLayerNormalization" not in optimised(result.program, tmp_path / "after.onnx")


def test_without_a_bias_it_is_a_sum(tmp_path):
    result = fused(ReorderResidual(), program(f"t = Add(x, z) {NORM}"), TOLERANCE)
    assert operators(result.program) == ["Sum", "LayerNormalization"]
    assert "SkipLayerNormalization" not in optimised(result.program, tmp_path / "after.onnx")


def test_golden():
    before = program(BIASED)
    after = ReorderResidual().run(before.clone(), Context()).program
    golden("fuse/reorder-residual", before_and_after(before, after))


def test_a_biased_branch_that_others_read_keeps_its_order():
    outputs = "float[batch,length,8] y, float[batch,length,8] u"
    result = fused(ReorderResidual(), program(f"{BIASED} u = Relu(a)", outputs=outputs), TOLERANCE)
    assert operators(result.program) == ["MatMul", "Add", "Sum", "LayerNormalization", "Relu"]


@pytest.mark.parametrize(
    ("body", "inputs", "reason"),
    [
        (
            f"t = Add(x, bias) {NORM}",
            "float[batch,length,8] x",
            "it normalises no sum of two computed values",
        ),
        (f"t = Relu(x) {NORM}", "float[batch,length,8] x", "it normalises no sum of two computed values"),
        (
            f"t = Add(x, z) {NORM}",
            "float[batch,length,8] x, float[1,length,8] z",
            "the sides of its sum are not known to have one shape",
        ),
    ],
)
def test_other_norms_stay_and_say_why(body, inputs, reason):
    result = fused(ReorderResidual(), program(body, inputs), TOLERANCE)
    assert not result.modified
    assert result.notes == (f"y: {reason}",)


def test_no_norm_at_all():
    result = ReorderResidual().run(parsed("y = Relu(x)"), Context())
    assert dict(result.statistics) == {"residuals reordered": "0 of 0 norms"}
    assert not result.modified
    assert np.array_equal(operators(result.program), ["Relu"])
