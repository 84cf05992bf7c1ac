#!/usr/bin/env bash
# A program that names AMX's tile registers itself (llvm.x86.tileloadd64, tdpbusd, ... with constant numbers) gives each
# register a size by ldtilecfg. Where LLVM's model of a processor schedules after register allocation, the scheduler
# breaks anti-dependencies by other free registers, and takes tiles for registers like any others: what was loaded as
# tile 5 is loaded and multiplied as tile 6 or 7, which may have another size, or none, and the product faults or is
# wrong. Of processors' models those of AMD's do so (-mcpu=znver4 -mattr=+amx-tile,+amx-int8, at -O3), those of Intel's
# with AMX don't. Seen: LLVM 22 in apache-tvm 0.27.0.post1, and clang 22.1.8 (ziglang 0.17.1) with the same LLVM text.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --no-input --target "$folder" apache-tvm==0.27.0.post1 numpy==2.4.6
cat >"$folder/tiles.py" <<'EOF'
import re
import tvm
from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T


def tile(name, *arguments):
    given = [tirx.const(a, "uint8") if isinstance(a, int) else a for a in arguments]
    T.evaluate(T.call_llvm_intrin("int32", T.llvm_lookup_intrinsic_id(f"llvm.x86.{name}"), *given))


def kernel():
    """x [m, 256] times panels of 64 columns: tiles 0 to 3 are sums, 4 is of x, 5 of w. Nothing names 6 and 7."""
    with IRBuilder() as builder, T.prim_func():
        T.func_name("main")
        m = tirx.Var("m", "int64")
        setup = T.arg("setup", T.buffer((64,), "uint8"))
        x, w = T.arg("x", T.buffer((m, 256), "uint8")), T.arg("w", T.buffer((2, 64, 256), "int8"))
        out = T.arg("out", T.buffer((2, m, 64), "int32"))
        stride = tirx.const(256, "int64")
        rows = T.bind(T.cast(m, "int32"))
        with T.parallel(0, 2) as thread:
            tile("ldtilecfg", T.address_of(setup[0]))
            with T.serial(0, 2) as panel, T.serial(0, rows // 16) as number:
                row = T.bind((thread + number) * 16)
                for v in range(4):
                    tile("tilezero", v)
                with T.serial(0, 4) as k:
                    tile("tileloadd64", 4, T.address_of(x[row, k * 64]), stride)
                    for v in range(4):
                        tile("tileloadd64", 5, T.address_of(w[panel, k * 16, v * 64]), stride)
                        tile("tdpbusd", v, 4, 5)
                for v in range(4):
                    tile("tilestored64", v, T.address_of(out[panel, row, v * 16]), stride)
            tile("tilerelease")
    return builder.get()


found = {}
for cpu in ("sapphirerapids", "znver4"):
    target = {"kind": "llvm", "mcpu": cpu, "mattr": ["+amx-tile", "+amx-int8"]}
    code = tvm.compile(tvm.IRModule({"main": kernel()}), target=target).mod.inspect_source("asm")
    found[cpu] = set(re.findall(r"tdpbusd\s+(%tmm\d, %tmm\d)", code))
    print(f"{cpu}: operands of tdpbusd are {sorted(found[cpu])}")
assert found["sapphirerapids"] == {"%tmm5, %tmm4"}
assert found["znver4"] != {"%tmm5, %tmm4"}, "tiles keep their numbers now"
EOF
PYTHONPATH=$folder python3 "$folder/tiles.py"
