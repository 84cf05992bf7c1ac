"""Schedules for functions that no kernel of the library covers: threads, vectors and registers, no search."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule

from .generic_blocks import Fit, inline
from .generic_product import product
from .generic_rows import rows
from .indices import flattening_right

_FINAL = ("graphwright.kernel", "tirx.is_scheduled")  # attributes of functions to leave alone


def schedule_generic(module: Any, target: Any) -> Any:
    """The module with its TIR functions scheduled for an LLVM target.

    A function that one rule does not fit goes to the next; one that none fits stays as TVM made it. So do
    functions that say they are final, but for the indices of all that TVM would get wrong (`indices`).

    Args:
        module: tvm.IRModule after LegalizeOps and FuseTIR. It is not edited.
        target: tvm.target.Target; its instruction set says how wide vectors are, num-cores how many threads
            there are.
    """
    fit = _fit(target)
    module = module.clone()
    for variable, function in module.functions_items():
        if isinstance(function, tvm.tirx.PrimFunc) and not any(name in function.attrs for name in _FINAL):
            module.update_func(variable, scheduled(function, fit))
    return flattening_right(module)


def scheduled(function: Any, fit: Fit) -> Any:
    """One function by the first rule that fits."""
    for rule in (product, rows):
        try:
            schedule = Schedule(tvm.IRModule({"main": function}), error_render_level="none")
            inline(schedule)
            rule(schedule, fit)
        except Exception:  # TVM raises what it likes; unscheduled is slow, and right
            continue
        return schedule.mod["main"]
    return function


def _fit(target: Any) -> Fit:
    features = {str(name) for name in tvm.target.codegen.llvm_get_cpu_features(target)}
    bits = 512 if "avx512f" in features else 256 if "avx" in features else 128
    threads = int(target.attrs.get("num-cores", 1))
    return Fit(bits, 32 if bits == 512 or "neon" in features else 16, threads)
