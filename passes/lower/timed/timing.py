"""How fast an fx program is beside another, as both will run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ....ir.errors import MeasureError
from ....ir.program import Program
from ...manager.contract import Context, Pass, Ratio
from ..to_onnx import ToOnnx


class Timing:
    """Programs timed as they will run, each beside the one that all are compared with.

    Args:
        program: fx, the uncut one.
        workload: the name of the call that is timed; "" is the first of the context's.
        ready: what is done in place to a copy of each before it is lowered.
        fusing: passes that each goes through behind that, for choices that hang on what is fused later.

    Raises:
        MeasureError: the context measures no such workload.
    """

    def __init__(
        self,
        program: Program,
        context: Context,
        workload: str,
        ready: Callable[[Program], None] = lambda program: None,
        fusing: Sequence[Pass] = (),
    ) -> None:
        assert context.measure is not None
        self._ready, self._fusing = ready, fusing
        self._measure: Callable[..., Mapping[str, Ratio]] = context.measure
        self._context, self._workload = context, workload
        self._uncut = self._lowered(program)

    def __call__(self, program: Program, processes: int = 1) -> float:
        """How many times as fast as the uncut program an fx program is, once lowered."""
        asked: dict[str, Any] = {"only": self._workload} if self._workload else {}
        if processes > 1:
            asked["processes"] = processes
        ratios = self.ratios(program, **asked)
        if not ratios or (self._workload and self._workload not in ratios):
            raise MeasureError(
                f"the workload {self._workload!r} is not among those that this run measures: "
                f"name it there too (--shapes {self._workload})"
            )
        return ratios[self._workload or next(iter(ratios))].median

    def ratios(self, program: Program, **asked: Any) -> Mapping[str, Ratio]:
        """The same at every workload, or at those that are asked for."""
        return self._measure(self._uncut, self._lowered(program), **asked)

    def _lowered(self, program: Program) -> Program:
        work = program.clone()
        self._ready(work)
        for pass_ in (ToOnnx(), *self._fusing):
            work = pass_.run(work, self._context).program
        return work
