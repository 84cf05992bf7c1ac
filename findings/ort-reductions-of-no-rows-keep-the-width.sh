#!/usr/bin/env bash
# A reduction over the last axis, with that axis kept, of an input without rows: (0, 32) is to become (0, 1), as
# (2, 32) becomes (2, 1). ONNX Runtime gives (0, 32), the input's own shape, and a warning at most; the next
# product with one number a row then fails, or broadcasts. It meets an int8 expert of a mixture that no token was
# sent to: its scales are a ReduceMax by rows. onnx's reference gives (0, 1). Seen for nine reductions at opset 20:
# onnxruntime 1.31.0, onnx 1.23.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnxruntime as ort
from onnx import TensorProto, checker, helper
from onnx.reference import ReferenceEvaluator
ort.set_default_logger_severity(4)
operators = "ReduceMax ReduceMin ReduceSum ReduceMean ReduceProd ReduceL1 ReduceL2 ReduceLogSumExp ReduceSumSquare"
for operator in operators.split():
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [-1])
    node = helper.make_node(operator, ["x", "axes"], ["y"], keepdims=1)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", w]) for n, w in (("x", 32), ("y", 1)))
    graph = helper.make_graph([node], "reduction", [x], [y], [axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    none, two = ({"x": np.zeros((rows, 32), np.float32)} for rows in (0, 2))
    seen = session.run(None, none)[0].shape, session.run(None, two)[0].shape
    meant = ReferenceEvaluator(model).run(None, none)[0].shape
    print(f"{operator}: {seen[0]} of no rows, {seen[1]} of two; the reference gives {meant} of no rows")
    assert seen == ((0, 32), (2, 1)) and meant == (0, 1)
EOF
