#!/usr/bin/env bash
# PyTorch's layer_norm on CPU in float32, over rows of a large mean and a small spread: [100000, 100001] by
# turns should become [-0.99998, 0.99998] and becomes [-1.0005, 1.0005]; a constant row of 1e20 becomes NaN.
# ONNX Runtime's LayerNormalization gives -0.99998 and zeros for the very same float32 rows, as float64 does. A
# comparison of an exported model with eager then blames the export. Residual streams of language models have
# such channels. Seen: torch 2.13.0 (CPU), onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" torch==2.13.0 onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnx, onnxruntime as ort, torch
model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 20]>
g (float[m,8] x, float[8] one) => (float[m,8] y) { y = LayerNormalization <axis=-1, epsilon=1e-5> (x, one) }""")
session = ort.InferenceSession(model.SerializeToString())
x = np.array([[1e5, 1e5 + 1] * 4, [1e20] * 8], np.float32)
exact = torch.nn.functional.layer_norm(torch.from_numpy(x).double(), (8,)).numpy()
eager = torch.nn.functional.layer_norm(torch.from_numpy(x), (8,)).numpy()
runtime = session.run(None, {"x": x, "one": np.ones(8, np.float32)})[0]
for name, y in (("float64", exact), ("PyTorch", eager), ("ONNX Runtime", runtime)):
    print(f"{name}: {y[0, :2]} {y[1, :2]}")
assert np.abs(runtime - exact).max() < 1e-6
assert np.abs(eager[0] - exact[0]).max() > 2e-4
assert np.isnan(eager[1]).all()
EOF
