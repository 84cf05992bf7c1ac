#!/usr/bin/env bash
# NaN is less than nothing, and nothing is as large as it: not (a < b) is true beside NaN where a >= b is false.
# TVM's simplifier makes the one of the other: the expression not (a < b) over floats comes out as b <= a, and a == a,
# whose opposite is the usual test for NaN, as true. And a != b of floats, with no simplifier in between, is compiled to
# LLVM's ordered comparison ("one": less or greater): it is false beside NaN, as is a == b, and NumPy, PyTorch, ONNX and C
# all say true. relax.op.not_equal is that. isnan is right.
# Seen: apache-tvm 0.27.0.post1 (LLVM, CPU).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" apache-tvm==0.27.0.post1 numpy==2.4.6
cat >"$folder/compared.py" <<'EOF'
import numpy as np
import tvm
from tvm import relax, tirx

X = np.array([1.0, np.nan, np.nan, 2.0, 3.0], np.float32)
Y = np.array([1.0, np.nan, 1.0, 1.0, np.nan], np.float32)


def compiled(make):
    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, relax.TensorType((5,), "float32")) for name in "xy")
    with builder.function("main", [x, y]):
        with builder.dataflow():
            made = builder.emit_output(make(x, y))
        builder.emit_func_output(made)
    machine = relax.VirtualMachine(tvm.compile(builder.get(), target="llvm"), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(X), tvm.runtime.tensor(Y)).numpy()


print("a     ", X, "\nb     ", Y)
for name, make, right in (
    ("a == b", relax.op.equal, X == Y),
    ("a != b", relax.op.not_equal, X != Y),
    ("isnan ", lambda x, y: relax.op.isnan(x), np.isnan(X)),
):
    found = compiled(make)
    print(name, found, "right" if (found == right).all() else f"where NumPy has {right}")
    assert (found == right).all() == (name != "a != b")

a, b = (tirx.Var(name, "float32") for name in "ab")
simplify = tvm.sym.Analyzer().simplify
for before in (tirx.Not(tirx.LT(a, b)), tirx.Not(tirx.EQ(a, b)), tirx.EQ(a, a)):
    after = simplify(before)
    print(before, "->", after)
assert isinstance(simplify(tirx.Not(tirx.LT(a, b))), tirx.LE)
assert isinstance(simplify(tirx.Not(tirx.EQ(a, b))), tirx.NE)
assert int(simplify(tirx.EQ(a, a))) == 1
EOF
PYTHONPATH=$folder python3 "$folder/compared.py"
