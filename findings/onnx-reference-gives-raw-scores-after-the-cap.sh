#!/usr/bin/env bash
# Attention's fourth output shows the scores at a stage of one's choice: qk_matmul_output_mode 0 is the product of
# queries and keys, 1 what the softcap makes of it. onnx.reference gives the capped scores for 0, too: the cap is
# written over the product. ONNX Runtime gives the product. Whoever debugs a capped model (Gemma 2) against the
# reference's scores finds a difference where there is none. Seen: onnx 1.23.0, onnxruntime 1.31.0.
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
rng = np.random.default_rng(0)
feed = {name: 5 * rng.normal(size=(1, 1, 2, 4)).astype(np.float32) for name in "qkv"}
product = feed["q"].astype(float) @ feed["k"].astype(float).swapaxes(-1, -2) / 2
capped = 2 * np.tanh(product / 2)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4
for mode, wanted in ((0, product), (1, capped)):
    node = helper.make_node("Attention", ["q", "k", "v"], ["y", "", "", "scores"], softcap=2.0, qk_matmul_output_mode=mode)
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [value(name) for name in feed], [value("y"), value("scores")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    reference = ReferenceEvaluator(model).run(None, feed)[1]
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, feed)[1]
    print("mode", mode, "reference", reference.ravel().round(3).tolist(), "onnxruntime", runtime.ravel().round(3).tolist())
    assert np.allclose(runtime, wanted, atol=1e-4), (mode, runtime)
    assert np.allclose(reference, capped, atol=1e-4), (mode, reference)
assert np.abs(product - capped).max() > 1
PY
