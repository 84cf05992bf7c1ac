#!/usr/bin/env bash
# QuantizeLinear saturates: what is above the largest code becomes the largest. onnx.reference casts the quotient to
# a 32-bit integer before it saturates, so from 2^31 scales on it gives the smallest code instead (x86: 3e9 becomes
# -128), and infinity too. ONNX Runtime gives 127. A channel whose scale was calibrated on nearly nothing is enough.
# Seen: onnx 1.23.0, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnx==1.23.0 \
  onnxruntime==1.31.0 2>/dev/null
PYTHONPATH=$folder python3 -W ignore - <<'PY'
import platform

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__, platform.machine())
x, scale = np.array([100, 2e9, 3e9, 1e30, np.inf, -3e9], np.float32), np.array(1, np.float32)
for kind, top, least in ((TensorProto.INT8, 127, -128), (TensorProto.UINT8, 255, 0), (TensorProto.INT16, 32767, -32768)):
    node = helper.make_node("QuantizeLinear", ["x", "scale"], ["y"], output_dtype=kind)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "scale")]
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", kind, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    feed = {"x": x, "scale": scale}
    reference = ReferenceEvaluator(model).run(None, feed)[0].astype(int).tolist()
    runtime = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feed)[0].astype(int).tolist()
    print(x.tolist(), "reference", reference, "onnxruntime", runtime)
    assert runtime == [100, top, top, top, top, least], runtime
    if platform.machine() == "x86_64":  # elsewhere the cast of NumPy saturates
        assert reference == [100, top, least, least, least, least], reference
PY
