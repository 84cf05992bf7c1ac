#!/usr/bin/env bash
# ONNX Runtime's session option session.x64quantprecision=1 is there for x86 without VNNI, whose kernels for unsigned by
# signed 8-bit integers add two products in 16 bits and saturate: with it sums are right. But only from the optimisation
# level "extended" on, since a rewrite of that level does it. At "disabled" and "basic", which is where one compares
# what a graph means, MatMulInteger gives the saturated sums with the option as without, and no warning: 524,272 for
# 926,415. A processor with VNNI (or AMX, or Arm) has nothing to show here: the check says so and passes.
# Seen: onnxruntime 1.31.0, onnx 1.23.0, AMD EPYC (Zen 3).
set -euo pipefail
if [ "$(uname -m)" != x86_64 ] || grep -q vnni /proc/cpuinfo; then
  echo "this processor adds products of 8-bit integers in 32 bits: nothing to see here"
  exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 \
  2>/dev/null
PYTHONPATH=$folder python3 - <<'PY'
import numpy as np
import onnx
import onnxruntime as ort

print("onnxruntime", ort.__version__, "onnx", onnx.__version__)
weight = np.random.default_rng(0).integers(100, 128, (32, 6)).astype(np.int8)
model = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 20]> g (uint8[m,32] x) => (int32[m,6] y) { y = MatMulInteger (x, w) }'
)
model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
rows = np.full((5, 32), 255, np.uint8)
right = rows.astype(np.int64) @ weight.astype(np.int64)
levels = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
for level in levels:
    found = {}
    for precise in ("0", "1"):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        options.add_session_config_entry("session.x64quantprecision", precise)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        found[precise] = session.run(None, {"x": rows})[0]
    print(level, "without", found["0"][0, 0], "with the option", found["1"][0, 0], "right", right[0, 0])
    assert (found["0"] != right).any()
    assert (found["1"] == right).all() == (level in levels[2:])
PY
