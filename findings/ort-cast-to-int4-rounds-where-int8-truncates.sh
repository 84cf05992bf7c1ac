#!/usr/bin/env bash
# ONNX Runtime's Cast of a float to INT4 rounds half away from zero and wraps modulo 16; to INT8 it truncates
# towards zero and wraps modulo 256. onnx's reference evaluator truncates for both. QuantizeLinear with scale 1
# rounds half to even and saturates. So three ways to write "as an integer" give three numbers for 2.5 and for
# 8.5. Seen: onnxruntime 1.31.0 (CPU), onnx 1.23.0.
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

x = np.array([-0.5, 0.5, 1.5, 2.5, 8.5], np.float32)
def cast(to):
    text = f"""<ir_version: 10, opset_import: ["": 21]>
    g (float[n] x) => (float[n] y) {{ c = Cast <to={to}> (x) y = Cast <to=1> (c) }}"""
    run, model = session(text)
    return run.run(None, {"x": x})[0].tolist(), ReferenceEvaluator(model).run(None, {"x": x})[0].tolist()
four, reference = cast(onnx.TensorProto.INT4)
eight, _ = cast(onnx.TensorProto.INT8)
zero = onnx.helper.make_tensor("zero", onnx.TensorProto.INT4, [], [0])
text = """<ir_version: 10, opset_import: ["": 21]>
g (float[n] x) => (float[n] y) { c = QuantizeLinear (x, one, zero) y = Cast <to=1> (c) }"""
model = onnx.parser.parse_model(text)
model.graph.initializer.extend([onnx.numpy_helper.from_array(np.float32(1), "one"), zero])
quantized = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0].tolist()
print(f"x {x.tolist()}\nCast to INT4 {four}\nthe reference {reference}\nCast to INT8 {eight}\nQuantizeLinear {quantized}")
assert four == [-1, 1, 2, 3, -7]
assert reference == [0, 0, 1, 2, -8]
assert eight == [0, 0, 1, 2, 8]
assert quantized == [0, 0, 2, 2, 7]
EOF
