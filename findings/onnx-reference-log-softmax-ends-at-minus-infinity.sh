#!/usr/bin/env bash
# onnx.reference computes LogSoftmax as the logarithm of the softmax, and SoftmaxCrossEntropyLoss likewise: what stands
# 200 below a row's largest is -infinity in float32 (20 below in float16), 100 below it is already off in the fourth
# digit, and the loss of such a label is infinite. ONNX Runtime gives -200. Whoever takes the reference for the
# yardstick of a language model's log-probabilities sees an infinite perplexity of a finite model.
# Seen: onnx 1.23.0, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnx==1.23.0 \
  onnxruntime==1.31.0 2>/dev/null
PYTHONPATH=$folder python3 -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def both(node, kind, outputs, feed):
    types = {"x": kind, "labels": TensorProto.INT64}
    values = [helper.make_tensor_value_info(name, types[name], None) for name in feed]
    graph = helper.make_graph(
        [node], "g", values, [helper.make_tensor_value_info(name, kind, None) for name in outputs]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return ReferenceEvaluator(model).run(None, feed)[0], session.run(None, feed)[0]


print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
plain = helper.make_node("LogSoftmax", ["x"], ["y"], axis=-1)
single = np.array([[0, -100, -200]], np.float32)
reference, runtime = both(plain, TensorProto.FLOAT, ["y"], {"x": single})
print("float32", single.tolist(), "reference", reference.tolist(), "onnxruntime", runtime.tolist())
assert np.isneginf(reference[0, 2]) and abs(reference[0, 1] + 100) > 0.01, reference
assert np.abs(runtime - single).max() < 1e-4, runtime
half = np.array([[0, -10, -20]], np.float16)
reference, runtime = both(plain, TensorProto.FLOAT16, ["y"], {"x": half})
print("float16", half.tolist(), "reference", reference.tolist(), "onnxruntime", runtime.tolist())
assert np.isneginf(reference[0, 2]) and abs(runtime[0, 2] + 20) < 0.02, (reference, runtime)
loss = helper.make_node("SoftmaxCrossEntropyLoss", ["x", "labels"], ["y"])
feed = {"x": np.array([[0, -200]], np.float32), "labels": np.array([1], np.int64)}
reference, runtime = both(loss, TensorProto.FLOAT, ["y"], feed)
print("the loss of the second label of [0, -200]: reference", reference, "onnxruntime", runtime)
assert np.isposinf(reference) and abs(runtime - 200) < 1e-3, (reference, runtime)
PY
