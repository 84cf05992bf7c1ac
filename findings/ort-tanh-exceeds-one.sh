#!/usr/bin/env bash
# ONNX Runtime's float32 Tanh gives 1.0000001 for some numbers between 8.2 and 9 (and -1.0000001 below -8.2): a
# rational function is clamped in its argument, not in its value. So 1 - tanh(x)^2 is negative, atanh and the square
# root of it are NaN. NumPy never exceeds 1. Seen on kernels of AVX512, of AVX2 and of SSE: onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnx==1.23.0 \
  onnxruntime==1.31.0 2>/dev/null
PYTHONPATH=$folder python3 -W ignore - <<'PY'
import numpy as np
import onnxruntime
from onnx import TensorProto, helper

value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", [value("x")], [value("y")])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
x = np.linspace(0, 12, 1 << 16, dtype=np.float32)
y = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
above = y > 1
print("onnxruntime", onnxruntime.__version__, f"{above.sum()} of {len(x)} above 1, from tanh({x[above][0]}) =",
      y[above][0], "on; NumPy's largest:", np.tanh(x).max())
assert above.any() and y.max() == np.float32(1.0000001) and np.tanh(x).max() == 1
print("1 - tanh(x)^2 is below 0:", (1 - y.astype(float) ** 2 < 0).sum(), "| atanh is NaN:", np.isnan(np.arctanh(y)).sum())
PY
