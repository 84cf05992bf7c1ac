#!/usr/bin/env bash
# ONNX Runtime's ReduceMax and ReduceMin over an inner axis return NaN only where the NaN is the first number of
# the row; anywhere else it is dropped. ReduceSum, ReduceMean, and the pairwise Max and Min keep it wherever it
# is. So a check "is the maximum finite?" in a graph passes over a broken row. NumPy's max and PyTorch's amax
# give NaN for each of these rows. Seen: onnxruntime 1.31.0 (CPU).
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

dropped = {}
for operator in ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"):
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    g (float[n,17] x) => (float[n] y) {{
        axis = Constant <value_ints=[1]> ()
        y = {operator} <keepdims=0> (x, axis)
    }}"""
    run, _ = session(text)
    dropped[operator] = []
    for place in range(17):
        x = np.arange(17, dtype=np.float32)[None]
        x[0, place] = np.nan
        if not np.isnan(run.run(None, {"x": x})[0]).any():
            dropped[operator].append(place)
    print(operator, "gives a number although a NaN is at", dropped[operator])
assert all(len(dropped[operator]) > 8 and 0 not in dropped[operator] for operator in ("ReduceMax", "ReduceMin"))
assert dropped["ReduceSum"] == dropped["ReduceMean"] == []
text = """<ir_version: 10, opset_import: ["": 20]>
g (float[n] a, float[n] b) => (float[n] y) { y = Max (a, b) }"""
a, b = np.array([np.nan, 1], np.float32), np.array([1, np.nan], np.float32)
(y,) = session(text)[0].run(None, {"a": a, "b": b})
print("Max", y)
assert np.isnan(y).all()
EOF
