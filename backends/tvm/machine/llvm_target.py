"""A Target as LLVM knows it, and which processors can run what was built for it."""

from __future__ import annotations

import re
from typing import Any

from ....ir.errors import BackendError
from ...processor import plain
from ...target import Target
from ..run.library import compiler

# Instruction sets of x86 that kernels may use; the rest of what LLVM lists is tuning, or for systems.
_X86 = re.compile(r"avx|fma$|f16c|bmi2|gfni|vaes|vpclmul|ssse3|sse4\.|popcnt|movbe")
_TILES = ("amx-bf16", "amx-int8", "amx-tile")
# Those of Arm, as this package, LLVM and Linux call them.
_ARM = (
    ("neon", "neon", "asimd"), ("dotprod", "dotprod", "asimddp"), ("i8mm", "i8mm", "i8mm"),
    ("bf16", "bf16", "bf16"), ("fp16", "fullfp16", "asimdhp"), ("sve", "sve", "sve"),
)  # fmt: skip

# The loop vectoriser of TVM 0.27's LLVM takes x % 8 for x where a loop over x is longer than 8: a rotary
# embedding behind a reshape read past its table. Schedules say what becomes a vector.
_SAFE = "-vectorize-loops:bool=0"


def llvm_target(target: Target, threads: int) -> Any:
    """A tvm.target.Target.

    Args:
        target: this machine, whose processor LLVM then names, or one known by its instruction sets.
        threads: that kernels are made for.

    Raises:
        BackendError: TVM is missing, or builds nothing for this architecture.
    """
    tvm = compiler()
    if target.arch not in ("x86_64", "aarch64"):
        raise BackendError(f"the tvm backend builds for x86_64 and aarch64, not for {target.arch}")
    chosen = _host(target.processor or host_processor()) if target.name == "host" else _named(target)
    return tvm.target.Target({"kind": "llvm", "num-cores": threads, "cl-opt": [_SAFE], **chosen})


def _named(target: Target) -> dict[str, Any]:
    """The oldest processor that has the target's instruction sets."""
    isa = target.isa
    if target.arch == "aarch64":
        mattr = [f"+{llvm}" for name, llvm, _ in _ARM if name in isa]
        return {"mtriple": "aarch64-linux-gnu", "mcpu": "generic", "mattr": mattr}
    if "avx512f" in isa:
        mcpu = "cascadelake" if "avx512_vnni" in isa else "skylake-avx512"
        mcpu = "cooperlake" if "avx512_bf16" in isa else mcpu
        mcpu = "sapphirerapids" if "amx_tile" in isa else mcpu
    elif "avx2" in isa:
        mcpu = "alderlake" if "avx_vnni" in isa else "haswell"
    else:
        mcpu = "x86-64"
    return {"mtriple": "x86_64-linux-gnu", "mcpu": mcpu}


def host_processor() -> tuple[str, ...]:
    """This processor and what it lacks of its kind, as Target has it: a hypervisor may hide instructions."""
    tvm = compiler()
    mcpu = str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    features = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    has = {str(name): bool(on) for name, on in features.items()}
    kind = tvm.target.codegen.llvm_get_cpu_features(tvm.target.Target({"kind": "llvm", "mcpu": mcpu}))
    return (mcpu, *sorted(f"-{name}" for name in map(str, kind) if has.get(name) is False))


def _host(processor: tuple[str, ...]) -> dict[str, Any]:
    mcpu, *missing = processor
    return {"mcpu": mcpu, **({"mattr": missing} if missing else {})}


def needs(llvm: Any, tiles: bool = False) -> tuple[str, ...]:
    """The instruction sets that code for an LLVM target may use, as `processor.check` takes them.

    tiles: whether a kernel has products in AMX's tiles: LLVM uses them for nothing else.
    """
    features = sorted(map(str, compiler().target.codegen.llvm_get_cpu_features(llvm)))
    if "aarch64" in str(llvm.attrs.get("mtriple", "")) or "neon" in features:
        return tuple(linux for _, name, linux in _ARM if name in features)
    return tuple(plain(name) for name in features if _X86.match(name) or (tiles and name in _TILES))
