"""Compiles a program at several sizes into one module over one copy of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform

from ....ir.program import Program
from ...target import Target
from ..frontend.relax import relax_module
from ..kernels.amx import TILES
from ..kernels.machine import Machine
from ..machine.bfloat16 import compiled
from ..machine.llvm_target import llvm_target
from ..plan.emitter import ROWS, STARTS
from ..plan.planner import plan
from ..schedule.generic import schedule_generic
from ..tune.schedules import apply_database
from ..tune.tunables import dense_tile
from .bindings import called, edited
from .joined import Joined
from .memory import SharedStorage
from .reuse import Reused

_CHECKS = ("vm.builtin.check_tensor_info", "vm.builtin.match_shape")


@dataclass(frozen=True)
class Bucket:
    """A compiled size.

    sizes: of every symbol in the shapes of the program's inputs. function: its name in the module. inputs,
    weights: names in the order of its parameters, inputs first. outputs: names in the order of its results.
    mask: the input whose zeros are left out; `inputs` then end with what says which tokens are kept.
    """

    sizes: Mapping[str, int]
    function: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: tuple[str, ...]
    mask: str | None = None


@dataclass(frozen=True)
class Built:
    """executable: of TVM's virtual machine. weights: by name. target: what LLVM compiled for. tiles: whether
    any kernel multiplies in AMX's."""

    executable: Any
    weights: Mapping[str, np.ndarray]
    buckets: tuple[Bucket, ...]
    target: Any
    tiles: bool


def compile_buckets(
    program: Program, target: Target, threads: int, buckets: Sequence[Mapping[str, int]]
) -> Built:
    """Compiles a program.

    Args:
        program: of either dialect; it is not edited.
        target: the machine to compile for.
        threads: that kernels are made for.
        buckets: the size of every symbol of the program's inputs, for each function to compile.

    Raises:
        BackendError: TVM lacks an operator, a size is outside what the program takes, or nothing can be built
            for the target's architecture.
    """
    lowered = lower_buckets(program, target, threads, buckets)
    module = schedule_generic(apply_database(lowered.module, lowered.target), lowered.target)
    executable = compiled(module, target=lowered.target, relax_pipeline=_to_bytecode(lowered.buckets))
    tiles = any(TILES in (function.attrs or ()) for _, function in module.functions_items())
    return Built(executable, lowered.weights, lowered.buckets, lowered.target, tiles)


@dataclass(frozen=True)
class Lowered:
    """A program as functions that call kernels, before those are scheduled and compiled.

    module: a Relax function a bucket; kernels of the library are finished, others are open to tuning.
    """

    module: Any
    weights: Mapping[str, np.ndarray]
    buckets: tuple[Bucket, ...]
    target: Any


def lower_buckets(
    program: Program, target: Target, threads: int, buckets: Sequence[Mapping[str, int]]
) -> Lowered:
    """The first half of `compile_buckets`, with its arguments and errors; tuning begins where it ends."""
    llvm = llvm_target(target, threads)
    joined, made = Joined(), []
    most = max(prod(sizes.values()) for sizes in buckets)
    machine = Machine.of(target, threads)
    for number, sizes in enumerate(buckets):
        imported = relax_module(program, sizes)
        function = f"run_{number}"
        planned = plan(imported.module, program.inputs, machine, partial(_tile, most, target))
        inputs = (*imported.inputs, *((ROWS, STARTS) if planned.mask else ()))
        weights = joined.add(_lowered(planned.module, llvm), function)
        made.append(Bucket(dict(sizes), function, inputs, imported.outputs, weights, planned.mask))
    return Lowered(joined.module, joined.weights.arrays, tuple(made), llvm)


def _tile(most: int, target: Target, k: int, n: int, dtype: Any, rows: int) -> Any:
    """A tile of as many columns for all sizes of a build: they share its packed weight."""
    return dense_tile(most, k, n, dtype, target, rows)


def _lowered(module: Any, llvm: Any) -> Any:
    """Operators as kernels that are not scheduled yet, fused where one reads what another writes."""
    passes = [
        relax.backend.DispatchSortScan(),
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
        # Now, while a kernel that only renames an axis can be told by its loops.
        transform.RewriteDataflowReshape(),
    ]
    with llvm:
        return tvm.transform.Sequential(passes)(module)


def _to_bytecode(buckets: Sequence[Bucket]) -> Any:
    """TVM's own way from Relax to its virtual machine, with the storages of all functions shared."""
    return tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            SharedStorage(),
            transform.LowerAllocTensor(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            _without_checks(buckets),
            Reused(),
            transform.AttachGlobalSymbol(),
        ]
    )


def _without_checks(buckets: Sequence[Bucket]) -> Any:
    """Drops the checks of weights at every call (0.2 us each): the runtime binds the same ones once."""

    @tvm.transform.module_pass(opt_level=0, name="WithoutChecks")
    def apply(module: Any, _: Any) -> Any:
        module = module.clone()
        for bucket in buckets:
            function = module[bucket.function]
            weights = set(function.params[len(bucket.inputs) :])

            def edit(value: Any, weights: set[Any] = weights) -> Any:
                return None if called(value) in _CHECKS and value.args[0] in weights else value

            module.update_func(module.get_global_var(bucket.function), edited(function, edit))
        return module

    return apply
