#!/usr/bin/env bash
# ONNX Runtime's CPU kernel of ONNX Attention (opset 23) gives zeros for a query whose keys are all hidden by
# the smallest float. A softmax over equal scores is an equal share of each, so one expects the mean of the
# values: PyTorch's scaled_dot_product_attention gives that, and so does onnx's reference evaluator for the same
# file. With -1e38 in the mask, which hides as well, ONNX Runtime gives the mean too. Hugging Face models write
# torch.finfo(dtype).min. Seen: onnxruntime 1.31.0, onnx 1.23.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnx, onnxruntime as ort
from onnx.reference import ReferenceEvaluator

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

kind = "float[1,1,2,4]"
text = f"""<ir_version: 10, opset_import: ["": 23]>
g ({kind} q, {kind} k, {kind} v, float[2,2] mask) => ({kind} y) {{ y = Attention (q, k, v, mask) }}"""
run, model = session(text)
rng = np.random.default_rng(0)
feed = {name: rng.standard_normal((1, 1, 2, 4)).astype(np.float32) for name in "qkv"}
mean = feed["v"][0, 0].mean(0)
for hide in (np.finfo(np.float32).min, np.float32(-1e38)):
    feed["mask"] = np.array([[0, 0], [hide, hide]], np.float32)
    runtime = run.run(None, feed)[0][0, 0, 1]
    reference = ReferenceEvaluator(model).run(None, feed)[0][0, 0, 1]
    print(f"mask {hide:.4g}: ONNX Runtime {runtime}, reference {reference}, mean of the values {mean}")
    assert np.allclose(reference, mean, atol=1e-6)
    assert np.allclose(runtime, 0 if hide < -3e38 else mean, atol=1e-6)
EOF
