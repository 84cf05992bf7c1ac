"""Where a run can be taken up again: the programs before passes that another graph may do without."""

from __future__ import annotations

from ...ir.footprint import weight_bytes
from ...ir.program import Program
from ...passes.manager.contract import Context, Pass, Step
from ...passes.manager.instruments import Instrument
from .work import HUGE


class Points(Instrument):
    """Keeps the program before each gated pass, whose weights are those of the programs around it.

    None of a program of 1 GiB and more, whose weights are to be let go; nor behind a pass that changed what
    later ones are given, which they are to be given again.
    """

    def __init__(self) -> None:
        self._given: Context | None = None
        self._before: list[Program | None] = []

    def begin(self, pipeline: str, program: Program, context: Context) -> None:
        self._given, self._before = context, []

    def after(self, pass_: Pass, step: Step, before: Program, after: Program, context: Context) -> None:
        kept = pass_.gated() and context is self._given and weight_bytes(before) < HUGE
        self._before.append(before if kept else None)

    def before(self, number: int) -> Program | None:
        """The program before a pass, by its number; None where it was not kept."""
        return self._before[number]
