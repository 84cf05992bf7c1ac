"""Index arithmetic that TVM flattens wrongly, spelled so that it is left alone."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

_IN_LOOPS = tvm.transform.Sequential(  # as TVM's own pipeline begins, up to where blocks are gone
    [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.CompactBufferAllocation(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
    ]
)
_DIVISIONS = (tirx.FloorDiv, tirx.FloorMod)
_UNBOUNDED = 1 << 30  # what is loaded is no index, and its type's smallest number no bound


def flattening_right(module: Any) -> Any:
    """The module with every function that TVM 0.27 may compile to other numbers lowered to loops, in which
    divisions of indices truncate.

    Where FlattenBuffer makes one index of several, TVM's affine maps (`tvm.sym.iter_map_simplify`) get
    (x % 16 + 1) // 2 and (x + 3) // 2 % 3 wrong: a sum with a constant, which they pad to a multiple of the
    divisor, or with a negative term, beside a second division. They leave divisions that truncate alone, and
    those give the same where what is divided is not negative: a multiple of the divisor is added before.

    Args:
        module: tvm.IRModule, all of whose functions are scheduled. It is not edited.
    """
    suspects = {
        variable: function
        for variable, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc) and _divides(function)
    }
    if not suspects:
        return module
    module = module.clone()
    for variable, function in _IN_LOOPS(tvm.IRModule(suspects)).functions_items():
        loops = _Loops(function)
        changed = tvm_ffi.structural_map(
            function, [(tvm.ir.TensorLoad, loops.load), (tirx.BufferStore, loops.store)]
        )
        if not tvm_ffi.structural_equal(changed, function):
            module.update_func(module.get_global_var(variable.name_hint), changed)
    return module


def _divides(function: Any) -> bool:
    found: list[Any] = []
    tvm_ffi.structural_walk(function.body, (_DIVISIONS, found.append))
    return bool(found)


class _Loops:
    """Rewrites the indices of a function, knowing the bounds of its loops."""

    def __init__(self, function: Any) -> None:
        self._analyzer = tvm.sym.Analyzer()
        tvm_ffi.structural_walk(function.body, (tirx.For, self._bind))

    def _bind(self, loop: Any) -> None:
        self._analyzer.bind(loop.loop_var, tvm.ir.Range.from_min_extent(loop.min, loop.extent))

    def load(self, load: Any) -> Any:
        indices = self._truncating(load.indices)
        return load if indices is None else tirx.BufferLoad(load.source, indices)

    def store(self, store: Any) -> Any:
        indices = self._truncating(store.indices)
        return store if indices is None else tirx.BufferStore(store.buffer, store.value, indices)

    def _truncating(self, indices: Any) -> list[Any] | None:
        """None where nothing changes."""
        found = [tvm_ffi.structural_map(index, (_DIVISIONS, self._truncated)) for index in indices]
        same = all(map(tvm_ffi.structural_equal, found, indices))
        return None if same else found

    def _truncated(self, division: Any) -> Any:
        """A division with the same result everywhere in the loops; itself where TVM is right or gives up."""
        if not isinstance(division.b, tirx.IntImm) or (_signs(division.a) == {1} and int(division.b) > 0):
            return division
        sign = -1 if int(division.b) < 0 else 1
        dividend, divisor = division.a * sign, int(division.b) * sign
        quotient = self._quotient(dividend, divisor)
        if quotient is None:
            return division
        return quotient if isinstance(division, tirx.FloorDiv) else (dividend - quotient * divisor) * sign

    def _quotient(self, dividend: Any, divisor: int) -> Any:
        """dividend // divisor; None where the dividend has no bound."""
        if 1 not in _signs(dividend):
            # Turned round: truncating what goes backwards, TVM gets the remainders of vectors wrong.
            other = self._quotient(divisor - 1 - dividend, divisor)
            return None if other is None else 0 - other
        low = self._analyzer.const_int_bound(dividend).min_value
        if low <= -_UNBOUNDED:
            return None
        added = max(0, -(low // divisor))
        return tirx.truncdiv(dividend + added * divisor, divisor) - added


def _signs(index: Any, sign: int = 1) -> set[int]:
    """1 and -1 as an index has terms that are added and taken off, 0 where it has constants."""
    if isinstance(index, tirx.IntImm):
        return {0}
    if isinstance(index, tirx.Add | tirx.Sub):
        return _signs(index.a, sign) | _signs(index.b, -sign if isinstance(index, tirx.Sub) else sign)
    if isinstance(index, tirx.Mul) and isinstance(index.b, tirx.IntImm):
        return _signs(index.a, sign if int(index.b) > 0 else -sign)
    return {sign}
