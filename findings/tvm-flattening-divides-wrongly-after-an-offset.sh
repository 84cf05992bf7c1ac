#!/usr/bin/env bash
# Where TVM makes one index of several (FlattenBuffer, by tvm.sym.iter_map_simplify), it gets divisions wrong that
# have a constant added before and another division inside or around: source[(i % 16 + 1) // 2] is read at
# (i + 1) % 16 // 2, and i // 16 * 8 + (i % 16 + 1) // 2, which a fused loop over rows makes of an index j + 1 into
# repeated rows, becomes (i + 1) // 2 - 8. So numbers are wrong without a word, or come from outside of the array.
# It pads what is divided to a multiple of the divisor, and loses count. Divisions that truncate (truncdiv) it
# leaves alone, and they are right. Seen: apache-tvm 0.27.0.post1 (LLVM, CPU).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" apache-tvm==0.27.0.post1 numpy==2.4.6
cat >"$folder/read.py" <<'EOF'
import numpy as np
import tvm
from tvm import tirx
from tvm.script import tirx as T


@T.prim_func(s_tir=True)
def truncated(source: T.Buffer((9,), "float32"), result: T.Buffer((48,), "float32")):
    for i in range(48):
        result[i] = source[T.truncdiv(i % 16 + 1, 2)]


@T.prim_func(s_tir=True)
def floored(source: T.Buffer((9,), "float32"), result: T.Buffer((48,), "float32")):
    for i in range(48):
        result[i] = source[(i % 16 + 1) // 2]


def run(function):
    compiled = tvm.compile(tvm.IRModule({"main": function}), target="llvm")
    result = tvm.runtime.tensor(np.zeros(48, np.float32))
    compiled["main"](tvm.runtime.tensor(np.arange(9, dtype=np.float32)), result)
    return result.numpy().astype(int).tolist()


right = [(i % 16 + 1) // 2 for i in range(48)]
print("(i % 16 + 1) // 2 is", right[:16])
print("TVM reads at        ", run(floored)[:16])
assert run(floored) == [(i + 1) % 16 // 2 for i in range(48)] != right
assert run(truncated) == right

i = tirx.Var("i", "int32")
for index, becomes in (
    ((i + 3) // 2 % 3, lambda i: (i + 2) % 6 // 2),
    ((i % 16 + 1) // 2, lambda i: (i + 1) % 16 // 2),
    (i // 16 * 8 + (i % 16 + 1) // 2, lambda i: (i + 1) // 2 - 8),
):
    [made] = tvm.sym.iter_map_simplify([index], {i: tvm.ir.Range(0, 48)})
    print(index, "becomes", made)
    values = [[eval(str(each), {"i": at}) for at in range(48)] for each in (index, made)]
    assert values[0] != values[1] == [becomes(at) for at in range(48)]
EOF
PYTHONPATH=$folder python3 "$folder/read.py"
