#!/usr/bin/env bash
# Resize of opset 10 (and Upsample before it) maps an output pixel x to x / scale in the input. From opset 11 on
# that is called "asymmetric", and the default is "half_pixel", (x + 0.5) / scale - 0.5. onnx's version
# converter raises the opset and does not write the attribute, so a linear upsampling by 2 is shifted by a
# quarter of a pixel. Seen: onnx 1.23.0, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import numpy as np, onnx, onnxruntime as ort
model = onnx.parser.parse_model("""<ir_version: 5, opset_import: ["": 10]>
g (float[1,1,1,4] x, float[4] scales) => (float[1,1,1,8] y) { y = Resize <mode="linear"> (x, scales) }""")
scales = np.array([1, 1, 1, 2], np.float32)
del model.graph.input[1]
model.graph.initializer.append(onnx.numpy_helper.from_array(scales, "scales"))
raised = onnx.version_converter.convert_version(model, 11)
x = np.array([[[[0, 10, 20, 30]]]], np.float32)
before, after = (ort.InferenceSession(m.SerializeToString()).run(None, {"x": x})[0].ravel() for m in (model, raised))
print("opset 10", before.tolist(), "raised to 11", after.tolist())
node = next(node for node in raised.graph.node if node.op_type == "Resize")
print("attributes", [attribute.name for attribute in node.attribute])
assert before.tolist() == [0, 5, 10, 15, 20, 25, 30, 30]
assert after.tolist() == [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30]
EOF
