"""prune-tokens: tokens that nobody attends to are not carried through the layers that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ...ir.errors import PassError
from ...ir.program import Program
from ..manager.contract import Context, Lossy, Pass, Result


@dataclass(frozen=True)
class PruneTokens(Pass):
    """x"""

    name: ClassVar[str] = "prune-tokens"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()

    keep: tuple[float, ...] = ()
    layers: tuple[int, ...] = ()
    score: Literal["received", "first"] = "first"

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.blocks import recognise
        from ...ir.view import view
        from .tokens.shifted import Shifted
        from .tokens.sites import check, tokens

        seen = view(program)
        found = tokens(program, seen, recognise(seen))
        shares = {site: round(1000 * k) for site, k in zip(found.sites, self.keep)}
        check(program, found, [s.cut for s in shares])
        Shifted(program, found, shares, self.score).run()
        return Result(program, True, {})
