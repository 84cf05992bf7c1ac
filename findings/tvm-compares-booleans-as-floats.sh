#!/usr/bin/env bash
# A comparison of two boolean tensors for equality (relax.op.equal, which ONNX's Equal of tensor(bool) becomes; torch's
# exporter writes one into every floor division of integers) does not compile for a CPU: code generation takes booleans for
# floats ("fcmp oeq i1") and LLVM's verifier refuses the module. not_equal is refused alike; of int8 both compile and
# are right, and so is logical_not(logical_xor(x, y)) of the booleans. Seen: apache-tvm 0.27.0.post1 (LLVM, CPU).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" apache-tvm==0.27.0.post1 numpy==2.4.6
cat >"$folder/compare.py" <<'EOF'
import numpy as np
import tvm
from tvm import relax


def compiled(dtype, operator):
    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, relax.TensorType((4,), dtype)) for name in "xy")
    with builder.function("main", [x, y]):
        with builder.dataflow():
            made = builder.emit_output(operator(builder, x, y))
        builder.emit_func_output(made)
    return relax.VirtualMachine(tvm.compile(builder.get(), target="llvm"), tvm.cpu())


def tried(dtype, operator):
    x, y = (np.array(bits).astype(dtype) for bits in ([1, 1, 0, 0], [1, 0, 1, 0]))
    try:
        return compiled(dtype, operator)["main"](tvm.runtime.tensor(x), tvm.runtime.tensor(y)).numpy().tolist()
    except Exception as error:
        return str(error)


equal = lambda builder, x, y: relax.op.equal(x, y)
unequal = lambda builder, x, y: relax.op.not_equal(x, y)
spelled = lambda builder, x, y: relax.op.logical_not(builder.emit(relax.op.logical_xor(x, y)))
for dtype, operator, name in (
    ("int8", equal, "equal of int8"), ("bool", spelled, "not xor of bool"),
    ("bool", equal, "equal of bool"), ("bool", unequal, "not_equal of bool"),
):
    print(f"{name}:", tried(dtype, operator))
assert tried("int8", equal) == tried("bool", spelled) == [True, False, False, True]
assert tried("int8", unequal) == [False, True, True, False]
for operator in (equal, unequal):
    assert "fcmp" in tried("bool", operator), "it compiles now"
EOF
PYTHONPATH=$folder python3 "$folder/compare.py"
