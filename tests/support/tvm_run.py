"""Compiles an imported Relax module and runs it, for the tests: lowered as every build is, without the
library's kernels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault("TVM_NUM_THREADS", "2")  # read when tvm starts its threads

import numpy as np
import tvm
from graphwright.backends.target import detect
from graphwright.backends.tvm.machine.llvm_target import llvm_target
from graphwright.backends.tvm.schedule.generic import schedule_generic
from tvm import relax
from tvm.relax import transform


def target(level: int = 3) -> Any:
    """This machine, two threads. level: of LLVM's optimizer; 1 compiles in half the time."""
    return tvm.target.Target({**dict(llvm_target(detect(), 2).export()), "opt-level": level})


def lowered(module: Any) -> Any:
    """Every operator a TIR function, fused, unscheduled."""
    passes = [
        relax.backend.DispatchSortScan(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    with target():
        return tvm.transform.Sequential(passes)(module)


def compiled(module: Any, level: int = 3) -> Callable[..., list[np.ndarray]]:
    """The function "main" of a Relax module, scheduled by `schedule_generic`, over arrays."""
    llvm = target(level)
    built = tvm.compile(schedule_generic(lowered(module), llvm), target=llvm)
    main = relax.VirtualMachine(built, tvm.cpu())["main"]

    def call(*arrays: np.ndarray) -> list[np.ndarray]:
        result = main(*(tvm.runtime.tensor(array) for array in arrays))
        several = [result] if hasattr(result, "numpy") else result
        return [tensor.numpy() for tensor in several]

    return call


def run(imported: Any, feed: Mapping[str, np.ndarray], level: int = 3) -> dict[str, np.ndarray]:
    """An imported program's outputs by name."""
    found = compiled(imported.module, level)(*(feed[name] for name in imported.inputs))
    return dict(zip(imported.outputs, found, strict=True))


def sizes_of(program: Any, feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """What the symbols of a program's input shapes are in a feed."""
    return {
        dim: size
        for spec in program.inputs
        for dim, size in zip(spec.shape, feed[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }


def operators(module: Any) -> list[str]:
    """The Relax operators of "main", in order."""
    bindings = [binding for block in module["main"].body.blocks for binding in block.bindings]
    calls = [binding.value for binding in bindings if isinstance(binding.value, tvm.ir.Call)]
    return [getattr(call.op, "name", "call").removeprefix("relax.") for call in calls]
