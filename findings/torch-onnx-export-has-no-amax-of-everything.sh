#!/usr/bin/env bash
# x.max() and x.amax() are the same number, and so are x.amax() and x.amax((0, 1)) of a matrix: amax's axes are an
# empty list by default, which means all. torch.onnx.export writes the first and the third as a ReduceMax; the second
# ends in a ConversionError, as do x.amin() and x.aminmax() (which is made of both), since the exporter's function
# wants the axes as an operand that the call does not have. torch.export takes them all. Seen: torch 2.13.0 with
# onnxscript 0.7.2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" \
  torch==2.13.0 onnxscript==0.7.2 onnx==1.23.0 numpy==2.4.6
PYTHONPATH=$folder python3 - 2>/dev/null <<'PY'
import torch

forms = {
    "max()": lambda x: x.max(),
    "amax((0, 1))": lambda x: x.amax((0, 1)),
    "amax()": lambda x: x.amax(),
    "amin()": lambda x: x.amin(),
    "aminmax()": lambda x: torch.stack(x.aminmax()),
}


class Largest(torch.nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(x)


x = torch.randn(3, 4)
assert forms["max()"](x) == forms["amax((0, 1))"](x) == forms["amax()"](x)
for name, form in forms.items():
    program = torch.export.export(Largest(form), (x,))
    try:
        model = torch.onnx.export(program, dynamo=True, verbose=False).model
        found = " ".join(node.op_type for node in model.graph)
    except torch.onnx.OnnxExporterError as error:
        found = type(error).__name__
    print(f"{name}: {found}")
    assert found == ("ReduceMax" if name in ("max()", "amax((0, 1))") else "ConversionError"), found
PY
