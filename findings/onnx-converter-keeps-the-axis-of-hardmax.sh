#!/usr/bin/env bash
# onnx's version converter raises Softmax and LogSoftmax over opset 13 by flattening, since their default axis
# and its meaning changed there (all axes from 1 on became the last one). Hardmax changed in the same way in the
# same opset, and its node is left as it was: over a tensor of rank 3, each matrix had one 1 before and each row
# has one after. No error and no warning. Seen: onnx 1.23.0, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnx, onnxruntime as ort
x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
moved = {}
for operator in ("Softmax", "LogSoftmax", "Hardmax"):
    model = onnx.parser.parse_model(f"""<ir_version: 6, opset_import: ["": 11]>
    g (float[2,3,4] x) => (float[2,3,4] y) {{ y = {operator} (x) }}""")
    raised = onnx.version_converter.convert_version(model, 13)
    before, after = (ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0] for m in (model, raised))
    moved[operator] = float(np.abs(before - after).max())
    print(operator, "moved by", moved[operator], "sums over a matrix", before.sum((1, 2)), after.sum((1, 2)))
assert moved["Softmax"] < 1e-6 and moved["LogSoftmax"] < 1e-5 and moved["Hardmax"] == 1
EOF
