"""A tiny ONNX model, and deployments of it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """y = relu(x a) b + x, with an identity to remove; (batch, n, 32) float32."""
    rng = np.random.default_rng(0)
    weights = [(rng.standard_normal((32, 32)) / 6).astype(np.float32) for _ in "ab"]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Identity", ["h"], ["same"]),
        helper.make_node("Relu", ["same"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["z"]),
        helper.make_node("Add", ["z", "x"], ["y"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "n", 32])] for name in ("x", "y")
    ]
    held = [numpy_helper.from_array(array, name) for array, name in zip(weights, "ab", strict=True)]
    graph = helper.make_graph(nodes, "g", *ends, held)
    path = tmp_path_factory.mktemp("model") / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture
def quick():
    """Settings under which a build measures as little as it can."""
    return {"threads": 1, "shapes": ["1x4"], "quick": True}
