#!/usr/bin/env bash
# DynamicQuantizeLinear of a tensor of zeros: ONNX Runtime gives scale 1, onnx's reference evaluator 1/255.
# Integers and zero point agree (0), so a comparison of dequantized values never shows it; a test that compares
# a runtime's scale with the reference's fails on a padded batch. With a NaN the reference's scale is NaN, and
# ONNX Runtime's the range of the other numbers. Seen: onnxruntime 1.31.0 (CPU), onnx 1.23.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import warnings
import numpy as np, onnx, onnxruntime as ort
from onnx.reference import ReferenceEvaluator
warnings.simplefilter("ignore")

def session(text, weights=(), optimise=False, **entries):
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in weights)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in entries.items():
        options.add_session_config_entry(f"session.{key}", value)
    return ort.InferenceSession(model.SerializeToString(), options), model

text = """<ir_version: 10, opset_import: ["": 20]>
g (float[n] x) => (uint8[n] y, float s, uint8 z) { y, s, z = DynamicQuantizeLinear (x) }"""
run, model = session(text)
found = []
for x in ([0, 0, 0], [1, np.nan, -2]):
    feed = {"x": np.array(x, np.float32)}
    scales = [float(each.run(None, feed)[1]) for each in (run, ReferenceEvaluator(model))]
    print(f"{x}: scale {scales[0]:.6g} in ONNX Runtime, {scales[1]:.6g} in the reference")
    found += scales
assert np.allclose(found, [1, 1 / 255, 3 / 255, np.nan], equal_nan=True)
EOF
