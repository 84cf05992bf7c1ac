#!/usr/bin/env bash
# MatMulInteger's a_zero_point "may be an M element vector" for an A of (M, K), one zero point a row: what dynamic
# quantization by token needs. Nothing that ONNX ships with takes it: ONNX Runtime's CPU kernel refuses more than one
# zero point of A in either form (M elements; (M, 1)), and onnx.reference subtracts the vector along K, so it raises
# an error, or where M equals K gives another product without a word. So asymmetric activations have one zero point a
# call. Seen: onnx 1.23.0, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnx==1.23.0 \
  onnxruntime==1.31.0 2>/dev/null
PYTHONPATH=$folder python3 -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
assert "M element vector" in onnx.defs.get_schema("MatMulInteger", 10).inputs[2].description
rng = np.random.default_rng(0)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
for rows in (3, 4):
    a, b = rng.integers(0, 256, (rows, 4)).astype(np.uint8), rng.integers(0, 256, (4, 2)).astype(np.uint8)
    for zero in (np.arange(1, rows + 1, dtype=np.uint8), np.arange(1, rows + 1, dtype=np.uint8)[:, None]):
        feed = {"a": a, "b": b, "zero": zero}
        values = [helper.make_tensor_value_info(name, TensorProto.UINT8, list(feed[name].shape)) for name in feed]
        output = helper.make_tensor_value_info("y", TensorProto.INT32, [rows, 2])
        graph = helper.make_graph([helper.make_node("MatMulInteger", list(feed), ["y"])], "g", values, [output])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        wanted = (a.astype(int) - zero.reshape(-1, 1)) @ b.astype(int)
        said = []
        for run in (
            lambda: onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)[0],
            lambda: ReferenceEvaluator(model).run(None, feed)[0],
        ):
            try:
                said.append("as specified" if np.array_equal(run(), wanted) else "another product")
            except Exception as error:
                said.append(type(error).__name__)
        print(f"A of {a.shape}, zero points of {zero.shape}: onnxruntime {said[0]}, reference {said[1]}")
        assert said[0] not in ("as specified", "another product"), said
        vector = {3: "ValueError", 4: "another product"}[rows]
        assert said[1] == (vector if zero.ndim == 1 else "as specified"), said
PY
