#!/usr/bin/env bash
# TVM's CompactBufferAllocation makes an allocated buffer as small as what it sees read and written. A call that was
# given the buffer's address (address_of, for an intrinsic or an extern that takes base and stride, as BLAS and AMX's
# tiles do) counts as touching the one element that the address is of. So a (4, 64) buffer that such a call fills, and
# of which 32 columns are read, is allocated as (4, 32), while the call goes on writing rows 64 apart, and reads find
# other numbers, without a word. One store over the whole width is what keeps it. Seen: apache-tvm 0.27.0.post1.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" apache-tvm==0.27.0.post1 numpy==2.4.6
cat >"$folder/narrow.py" <<'EOF'
import re

import tvm
from tvm.script import tirx as T


@T.prim_func(s_tir=True)
def given_away(result: T.Buffer((4, 32), "float32")):
    held = T.alloc_buffer((4, 64), "float32")
    # rows, columns, and floats from one row to the next
    T.evaluate(T.call_extern("int32", "fill", T.address_of(held[0, 0]), 4, 64, 64))
    for i, j in T.grid(4, 32):
        result[i, j] = held[i, j]


@T.prim_func(s_tir=True)
def written_whole(result: T.Buffer((4, 32), "float32")):
    held = T.alloc_buffer((4, 64), "float32")
    for i, j in T.grid(4, 64):
        held[i, j] = T.float32(0)
    T.evaluate(T.call_extern("int32", "fill", T.address_of(held[0, 0]), 4, 64, 64))
    for i, j in T.grid(4, 32):
        result[i, j] = held[i, j]


def allocated(function):
    module = tvm.IRModule({"main": function})
    passes = tvm.transform.Sequential(
        [
            tvm.s_tir.transform.ConvertBlocksToOpaque(),
            tvm.s_tir.transform.CompactBufferAllocation(),
        ]
    )
    text = passes(module).script()
    assert '"fill", T.address_of(held[0, 0]), 4, 64, 64' in text, text
    return re.search(r"held = T\.alloc_buffer\((\([0-9, ]+\))", text)[1]


print("declared (4, 64); the call fills rows 64 apart; allocated", allocated(given_away))
print("with a store over the whole width:", allocated(written_whole))
assert allocated(given_away) == "(4, 32)"
assert allocated(written_whole) == "(4, 64)"
EOF
PYTHONPATH=$folder python3 "$folder/narrow.py"
