#!/usr/bin/env bash
# x.clamp(min=0) has no upper bound. TVM's importer of exported programs writes one all the same, infinity, whatever
# x holds: a program of floats runs, and one of integers is imported without a word and can't be built
# ("Cannot convert ... infinity to BigInt"). With both bounds, or as maximum(x, zeros), integers run and are right.
# Clamped ids and places (positions, buckets of distances) are integers. Seen: apache-tvm 0.27.0.post1, torch 2.13.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" \
  apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1 torch==2.13.0 numpy==2.4.6
PYTHONPATH=$folder python3 - 2>/dev/null <<'PY'
import numpy as np
import torch
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

forms = {
    "clamp(min=0)": lambda x: x.clamp(min=0),
    "clamp(max=0)": lambda x: x.clamp(max=0),
    "clamp(min=0, max=9)": lambda x: x.clamp(min=0, max=9),
    "maximum": lambda x: torch.maximum(x, torch.zeros_like(x)),
}


class Clamped(torch.nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, x):
        return self.form(x)


def run(form, x):
    module = from_exported_program(torch.export.export(Clamped(form), (x,)))
    machine = relax.VirtualMachine(relax.build(module, "llvm"), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(x.numpy()))
    return (result[0] if not isinstance(result, tvm.runtime.Tensor) else result).numpy()


for kind in (torch.float32, torch.int64):
    for name, form in forms.items():
        x = torch.arange(-3, 3).to(kind)
        try:
            found = "right" if np.array_equal(run(form, x), form(x).numpy()) else "wrong"
        except Exception as error:
            found = f"no build: {str(error).strip().splitlines()[-1][-60:]}"
        print(f"{kind} {name}: {found}")
        one_sided = name in ("clamp(min=0)", "clamp(max=0)")
        assert found.startswith("no build" if kind == torch.int64 and one_sided else "right"), found
PY
