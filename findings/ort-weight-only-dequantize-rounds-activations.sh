#!/usr/bin/env bash
# A weight-only file, DequantizeLinear of a constant int8 weight (one scale a column) before MatMul, says that
# activations are float32. At its default optimisation level ONNX Runtime turns the pair into MatMulNBits with
# blocks of 32 and accuracy_level 4, which rounds activations to 8 bits: outputs are off by some 0.4% of the
# largest, where the same session without graph optimisations is right to 1e-6. Blocks and 4-bit weights fare
# alike. session.qdq_matmulnbits_accuracy_level decides; at 1 it is right to 1e-6 again. Seen: onnxruntime
# 1.31.0 (CPU).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnx, onnxruntime as ort

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

rng, k, n = np.random.default_rng(0), 256, 64
w = rng.integers(-128, 128, (k, n)).astype(np.int8)
s = ((rng.random(n) + 0.5) / 1000).astype(np.float32)
x = rng.standard_normal((9, k)).astype(np.float32)
exact = x.astype(np.float64) @ (w * s.astype(np.float64))
text = f"""<ir_version: 10, opset_import: ["": 21]>
g (float[m,{k}] x) => (float[m,{n}] y) {{ d = DequantizeLinear <axis=1> (w, s) y = MatMul (x, d) }}"""
def error(**how):
    (y,) = session(text, (("w", w), ("s", s)), **how)[0].run(None, {"x": x})
    return np.abs(y - exact).max() / np.abs(exact).max()
plain = error()
default = error(optimise=True)
asked = error(optimise=True, qdq_matmulnbits_accuracy_level="1")
print(f"without optimisations {plain:.1e}, by default {default:.1e}, at accuracy level 1 {asked:.1e}")
assert plain < 2e-6 and asked < 2e-6 and 1e-3 < default < 2e-2
EOF
