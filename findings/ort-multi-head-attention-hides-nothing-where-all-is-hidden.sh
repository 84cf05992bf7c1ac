#!/usr/bin/env bash
# com.microsoft MultiHeadAttention with a key padding mask adds -10,000 to the scores of hidden keys. Where a
# mask hides every key of a sequence, all scores move alike and the result is the attention over the hidden keys
# as if none were hidden: neither zeros (PyTorch's scaled_dot_product_attention) nor the mean of the values. A
# row of padding in a batch therefore answers with what its padding holds. Seen: onnxruntime 1.31.0 (CPU).
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

text = """<ir_version: 10, opset_import: ["": 20, "com.microsoft": 1]>
g (float[1,3,4] q, float[1,3,4] k, float[1,3,4] v, int32[1,3] mask) => (float[1,3,4] y) {
    y = com.microsoft.MultiHeadAttention <num_heads=1> (q, k, v, , mask)
}"""
rng = np.random.default_rng(0)
feed = {name: rng.standard_normal((1, 3, 4)).astype(np.float32) for name in "qkv"}
found = {keep: session(text)[0].run(None, {**feed, "mask": np.full((1, 3), keep, np.int32)})[0] for keep in (0, 1)}
print("all hidden", found[0][0, 1], "none hidden", found[1][0, 1], "mean", feed["v"][0].mean(0))
assert np.allclose(found[0], found[1], atol=2e-3)
assert np.abs(found[0]).min() > 0 and np.abs(found[0][0] - feed["v"][0].mean(0)).max() > 0.01
EOF
