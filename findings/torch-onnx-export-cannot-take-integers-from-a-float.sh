#!/usr/bin/env bash
# torch.onnx.export(dynamo=True) of two everyday expressions. `1.0 - mask` with a mask of int64 (how padding is
# turned into a bias) raises: the exporter's promotion of types looks for a subtraction from a Python number, of
# which torch has none; `1 - mask`, `mask - 1.0` and `(1.0 - mask.float())` are exported. And `torch.arange(0.5,
# n)` up to a dynamic size is exported without a word into a file that no runtime loads: the Range counts in
# the size's type, int64, while its consumers are float. With `dtype=` given it is right.
# Seen: torch 2.13.0, onnxscript 0.7.2, onnx 1.23.0, onnxruntime 1.31.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" torch==2.13.0 onnxscript==0.7.2 onnxruntime==1.31.0 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - <<'EOF'
import contextlib, io, logging, warnings
import onnxruntime as ort, torch
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
class Module(torch.nn.Module):
    def __init__(self, body):
        super().__init__()
        self.body = body
    def forward(self, x, mask):
        return self.body(x, mask)
bodies = {
    "1.0 - mask": lambda x, m: x + (1.0 - m)[..., None],
    "1 - mask": lambda x, m: x + (1 - m)[..., None],
    "mask - 1.0": lambda x, m: x + (m - 1.0)[..., None],
    "1.0 - mask.float()": lambda x, m: x + (1.0 - m.float())[..., None],
    "arange(0.5, n)": lambda x, m: x + torch.arange(0.5, x.shape[1])[None, :, None],
    "arange(0.5, n, dtype)": lambda x, m: x + torch.arange(0.5, x.shape[1], dtype=torch.float32)[None, :, None],
}
x, mask = torch.randn(2, 9, 4), torch.ones(2, 9, dtype=torch.int64)
seen = {}
for name, body in bodies.items():
    module = Module(body).eval()
    module(x, mask)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            shapes = ({1: torch.export.Dim("n", min=2)}, {1: torch.export.Dim.AUTO})
            program = torch.onnx.export(module, (x, mask), dynamo=True, dynamic_shapes=shapes, verbose=False)
    except Exception:
        seen[name] = "not exported"
    else:
        try:
            ort.InferenceSession(program.model_proto.SerializeToString())
            seen[name] = "runs"
        except Exception:
            seen[name] = "not loaded"
    print(f"{name}: {seen[name]}")
assert seen["1.0 - mask"] == "not exported" and seen["arange(0.5, n)"] == "not loaded"
assert all(found == "runs" for name, found in seen.items() if name not in ("1.0 - mask", "arange(0.5, n)"))
EOF
