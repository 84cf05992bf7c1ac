#!/usr/bin/env bash
# Attention of opset 24 lets the mask's last axis be shorter than the keys: what is missing counts as hidden, so that
# a cache of fixed size (nonpad_kv_seqlen, filled by TensorScatter) takes the mask of the tokens that are there. ONNX
# Runtime's CPU kernel registers the opset and refuses such a mask when it runs, with nonpad_kv_seqlen and without,
# boolean and float; the same mask padded by hand gives what the reference gives. So a graph that the checker and the
# shape inference take fails at the first call. Seen: onnxruntime 1.31.0, onnx 1.23.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" onnx==1.23.0 \
  onnxruntime==1.31.0 2>/dev/null
PYTHONPATH=$folder python3 -W ignore - <<'PY'
import numpy as np
import onnx
import onnxruntime
from onnx import helper
from onnx.reference import ReferenceEvaluator

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
rng = np.random.default_rng(0)
query, cache = rng.normal(size=(1, 2, 3, 4)).astype(np.float32), rng.normal(size=(1, 2, 8, 4)).astype(np.float32)
options = onnxruntime.SessionOptions()
options.log_severity_level = 4


def model(feed):
    order = ["q", "k", "v", "mask", "", "", "filled"]
    given = [name if name in feed else "" for name in order]
    while not given[-1]:
        given.pop()
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feed.items()}
    values = [helper.make_tensor_value_info(name, kinds[name], list(feed[name].shape)) for name in feed]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2, 3, 4])
    graph = helper.make_graph([helper.make_node("Attention", given, ["y"])], "g", values, [output])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    onnx.checker.check_model(made, full_check=True)
    return made


def run(made, feed):
    return onnxruntime.InferenceSession(made.SerializeToString(), options).run(None, feed)[0]


for kind in (bool, np.float32):
    for filled in ({}, {"filled": np.array([5], np.int64)}):
        short = np.tril(np.ones((3, 5)), 2).astype(kind)
        hidden = np.zeros((3, 3), bool) if kind is bool else np.full((3, 3), -np.inf, np.float32)
        feed = {"q": query, "k": cache, "v": cache, "mask": short, **filled}
        padded = {**feed, "mask": np.concatenate([short, hidden], axis=1)}
        reference = ReferenceEvaluator(model(feed)).run(None, feed)[0]
        assert np.abs(run(model(padded), padded) - reference).max() < 1e-5
        try:
            run(model(feed), feed)
        except Exception as error:
            print(f"{kind.__name__}, {'with' if filled else 'without'} nonpad_kv_seqlen: {type(error).__name__}")
        else:
            raise SystemExit("a mask shorter than the keys is taken now")
PY
