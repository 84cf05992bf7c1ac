"""A program of either dialect as a Relax module at static sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....ir.errors import BackendError
from ....ir.program import Program

_LOWERED = {"call_tir", "call_dps_packed", "call_pure_packed", ""}  # what LegalizeOps makes of operators


@dataclass(frozen=True)
class Imported:
    """A program as Relax.

    module: tvm.IRModule of one function, "main": matrix products, norms, softmax, GELU and layout changes are
    Relax operators, weights are constants, nothing is legalised. It returns a tensor, or a tuple of them.
    inputs: names in the order of main's parameters. outputs: names in the order of what it returns.
    """

    module: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def relax_module(program: Program, sizes: Mapping[str, int]) -> Imported:
    """Imports a program.

    Args:
        program: of either dialect; it is not edited.
        sizes: of every symbol in the shapes of its inputs ("batch", "length").

    Raises:
        BackendError: a size is missing or outside what the program takes, or TVM lacks an operator.
    """
    sizes = _checked(program, sizes)
    if program.dialect == "onnx":
        from .onnx_importer import import_onnx

        module = import_onnx(program, sizes)
    else:
        from .from_fx import import_fx

        module = import_fx(program, sizes)
    names = tuple(spec.name for spec in program.inputs)
    try:
        module = _cleaned(module)
        missing = _not_lowered(module)
    except Exception as error:  # TVM raises what it likes
        reason = str(error).strip().split("\n")[-1]
        raise BackendError(f"TVM cannot lower the program: {reason}") from error
    if missing:
        raise BackendError(f"TVM cannot lower the program: it has no kernel for {missing}.")
    return Imported(module, names, program.outputs)


def _checked(program: Program, sizes: Mapping[str, int]) -> dict[str, int]:
    """The sizes of the program's symbols, each within its bounds."""
    symbols = dict.fromkeys(dim for spec in program.inputs for dim in spec.shape if isinstance(dim, str))
    for symbol in symbols:
        if symbol not in sizes:
            raise BackendError(f"TVM builds for fixed sizes: give one for '{symbol}'.")
        low, high = program.symbols.get(symbol, (1, sizes[symbol]))
        if not low <= sizes[symbol] <= high:
            raise BackendError(f"{symbol}={sizes[symbol]} is outside what the model takes, {low} to {high}.")
    return {symbol: sizes[symbol] for symbol in symbols}


def _cleaned(module: Any) -> Any:
    """The module with what its importer left lying about removed; every operator stays one."""
    import tvm
    from tvm.relax import transform

    from .narrow import keeping_narrow
    from .simplify import simplified

    tidy = tvm.transform.Sequential(
        [
            transform.CanonicalizeBindings(),
            transform.FoldConstant(),
            transform.EliminateCommonSubexpr(),
            transform.DeadCodeElimination(),
        ]
    )
    module = simplified(transform.CanonicalizeBindings()(module))
    return keeping_narrow(module, lambda module: tidy(simplified(tidy(module))))


def _not_lowered(module: Any) -> str:
    """An operator that TVM would give up on in the middle of compiling; empty if there is none."""
    import tvm
    from tvm import relax

    from .rewriter import operator

    left: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, tvm.ir.Call) and operator(value) not in _LOWERED:
            left.append(operator(value))

    passes = [relax.backend.DispatchSortScan(), relax.transform.LegalizeOps()]
    with tvm.target.Target("llvm"):  # sorts and scans are dispatched for a target
        relax.analysis.post_order_visit(tvm.transform.Sequential(passes)(module)["main"], look)
    return left[0] if left else ""
