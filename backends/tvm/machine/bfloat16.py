"""Instructions in bfloat16, a type that the code generator of TVM 0.27 lacks.

A kernel calls an intrinsic of Arm's instead, over integers: its vectors may be of any size, and LLVM's
optimizer knows that it has no side effects. Compiled modules are then read anew from their text with the
processor's own names in it; integers in place of bfloat16 are how LLVM declared them up to version 16, and it
still reads that.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tvm

from ....ir.host.temporary import TemporaryFolder

DOT = "llvm.aarch64.neon.bfdot.v16f32.v16i32"
"""(float32x16 sums, int32x16 pairs, int32x16 pairs) -> sums."""
NARROW = {lanes: f"llvm.aarch64.neon.fcvtns.v{lanes}i16.v{lanes}f32" for lanes in (8, 16)}
"""float32 -> int16, by lanes."""
_OWN = {
    DOT: "llvm.x86.avx512bf16.dpbf16ps.512",
    **{name: f"llvm.x86.avx512bf16.cvtneps2bf16.{32 * lanes}" for lanes, name in NARROW.items()},
}


def compiled(module: Any, **options: Any) -> Any:
    """tvm.compile, its arguments and result, with the processor's instructions for what stands for them."""
    executable = tvm.compile(module, **options)
    executable.mod = _read_anew(executable.mod)
    return executable


def _read_anew(module: Any) -> Any:
    """The module, or what it becomes; modules that it imports are exchanged in place."""
    before = list(module.imports)
    imports = [_read_anew(each) for each in before]
    text = str(module.inspect_source("ll")) if module.kind == "llvm" else ""
    if any(name in text for name in _OWN):
        for name, own in _OWN.items():
            text = text.replace(f"@{name}(", f"@{own}(")
        with TemporaryFolder() as folder:
            path = Path(folder) / "module.ll"
            path.write_text(text)
            module = tvm.runtime.load_module(str(path))
    elif all(new is old for new, old in zip(imports, before, strict=True)):
        return module
    else:
        module.clear_imports()
    for each in imports:
        module.import_module(each)
    return module
