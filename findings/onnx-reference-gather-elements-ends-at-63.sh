#!/usr/bin/env bash
# onnx's ReferenceEvaluator on GatherElements along an axis of 64 elements or more: NumPy's choose, which it is
# made of, takes at most 63, and what it does then is another operation. Data (64, 1) gathered along axis 0 by
# zeros gives the data back instead of its first row 64 times, without a word; other indices raise IndexError, an
# axis of 65 in three axes ValueError. Along 63 all is right. ONNX Runtime and NumPy's take_along_axis agree in
# every case. So a constant of relative positions is folded to other numbers, or not at all.
# Seen: onnx 1.23.0, numpy 2.4.6, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnxruntime as ort
from onnx import TensorProto, checker, helper
from onnx.reference import ReferenceEvaluator
def seen(shape, indices, axis):
    node = helper.make_node("GatherElements", ["x", "i"], ["y"], axis=axis)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    i = helper.make_tensor_value_info("i", TensorProto.INT64, indices.shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, indices.shape)
    graph = helper.make_graph([node], "gather", [x, i], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model, full_check=True)
    feed = {"x": np.arange(np.prod(shape), dtype=np.float32).reshape(shape), "i": indices}
    meant = np.take_along_axis(feed["x"], indices, axis)
    assert np.array_equal(ort.InferenceSession(model.SerializeToString()).run(None, feed)[0], meant)
    try:
        return "right" if np.array_equal(ReferenceEvaluator(model).run(None, feed)[0], meant) else "wrong"
    except Exception as error:
        return type(error).__name__
cases = {
    "63 rows by zeros": ((63, 1), np.zeros((63, 1), np.int64), 0),
    "64 rows by zeros": ((64, 1), np.zeros((64, 1), np.int64), 0),
    "64 rows backwards": ((64, 1), np.arange(64)[::-1, None].copy(), 0),
    "65 of three axes": ((1, 2, 65), np.zeros((1, 2, 3), np.int64), 2),
}
found = {name: seen(*case) for name, case in cases.items()}
print(found)
assert found == dict(zip(cases, ("right", "wrong", "IndexError", "ValueError")))
EOF
