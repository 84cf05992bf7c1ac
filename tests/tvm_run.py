"""Compiles an imported Relax module and runs it, for the tests."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "2")  # read when tvm starts its threads

import numpy as np

TARGET = {"kind": "llvm", "mcpu": "native", "num-cores": 2}


def lowered(imported: Any, target: Any) -> Any:
    """Every operator a TIR function, fused, unscheduled."""
    import tvm
    from tvm.relax import transform as passes

    with target:
        return tvm.transform.Sequential(
            [
                passes.LegalizeOps(),
                passes.AnnotateTIROpPattern(),
                passes.FoldConstant(),
                passes.FuseOps(),
                passes.FuseTIR(),
                passes.DeadCodeElimination(),
            ]
        )(imported.module)


def run(imported: Any, feed: Mapping[str, np.ndarray], schedule: bool = True) -> list[np.ndarray]:
    """The module's outputs on a feed, as graphwright schedules it."""
    import tvm
    from tvm import relax

    target = tvm.target.Target(TARGET)
    module = lowered(imported, target)
    if schedule:
        from graphwright.backends.tvm.generic import schedule_generic

        module = schedule_generic(module, target)
    machine = relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(feed[name]) for name in imported.inputs))
    several = result if len(imported.outputs) > 1 or not hasattr(result, "numpy") else [result]
    return [tensor.numpy() for tensor in several]
