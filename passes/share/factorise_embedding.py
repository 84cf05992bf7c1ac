"""factorise-embedding: a table of words as two matrices of a low rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...ir.errors import PassError
from ...ir.program import Program
from ...ir.spec import IDS
from ..common.calibration import check
from ..manager.contract import Context, Lossy, Pass, Result
from ..manager.varying import Between

if TYPE_CHECKING:
    from .low_rank.tables import Table


@dataclass(frozen=True)
class FactoriseEmbedding(Pass):
    """Write the table of word vectors as a narrow table and one matrix that widens its rows (ALBERT).

            h = embedding(table[30522,768], ids)
        ->  h = linear(embedding(rows[30522,128], ids), w[768,128])

    Lan et al., 2019, arXiv:1909.11942, section 3.1. The two are the truncated singular value decomposition
    of the table, in float64; where there are calibration or training texts, each row counts as often as its
    token occurs there, padding left out. A head that multiplies by the same table (y = h table^T) multiplies
    by the two instead, and the table stays shared. Tables of positions and types stay as they are.

    rank: width of the narrow table, below the table's own.
    smoothing: occurrences added to every token's, so that those which no text has count for something.
    """

    name: ClassVar[str] = "factorise-embedding"
    source: ClassVar = "fx"
    target: ClassVar = "fx"
    effect: ClassVar = Lossy()
    varies: ClassVar = {"rank": Between(32, 256, step=32)}

    rank: int = 128
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}, and a table has one column or more")
        if not self.smoothing > 0:
            raise ValueError(
                f"smoothing is {self.smoothing:g}, and tokens that no text has need it above 0 to count"
            )

    def run(self, program: Program, context: Context) -> Result:
        from ...ir.fx.graph import to_numpy
        from ..common.fx_activations import statistics
        from ..common.fx_weights import quantized, sound
        from .low_rank.tables import factorise, tables
        from .low_rank.truncated import weighted_rows

        if (what := quantized(program.graph)) is not None:
            raise PassError(f"the model is quantized already (it has {what}): factorise before")
        found = tables(program)
        notes = [f"{table.matrix.name} stays, {why}" for table in found if (why := self._unfit(table))]
        fit = [table for table in found if not self._unfit(table)]
        if not fit:
            raise PassError(f"there is no table to factorise: {notes[0] if notes else _nothing(program)}")
        feeds = context.training or context.calibration
        if feeds:
            check(program, feeds)
        kept, sizes = [], [0, 0]
        for number, table in enumerate(fit):
            name, tensor = table.matrix.name, table.matrix.tensor
            if not context.allow(f"factorise {name}"):
                continue
            context.progress("factorising tables", number, len(fit))
            sound(table.matrix)
            seen = statistics(program, [replace(table.matrix, products=[])], feeds)
            counts = seen[name][1] if feeds else None
            counts = np.zeros(len(tensor)) if counts is None else counts
            made = weighted_rows(to_numpy(tensor), counts + self.smoothing, self.rank)
            sizes[0] += tensor.nbytes
            sizes[1] += factorise(program, table, made.rows, made.columns)
            kept.append(f"{made.energy:.4f}")
            said = f"{int(counts.sum())} tokens of {np.count_nonzero(counts)} kinds weigh its rows"
            notes.append(f"{name}: {said if feeds else 'no texts were given, so all rows count alike'}")
        told: dict[str, int | float | str] = {
            "tables factorised": f"{len(kept)} of {len(found)}",
            "energy kept": " ".join(kept),
            "bytes before": sizes[0],
            "bytes": sizes[1],
        }
        return Result(program, bool(kept), told if kept else {}, tuple(notes))

    def _unfit(self, table: Table) -> str:
        tokens, features = table.matrix.tensor.shape
        if table.reason:
            return table.reason
        if self.rank >= min(tokens, features):
            return (
                f"its rank is {min(tokens, features)} at most ({tokens}x{features}): give a rank below, "
                f"not {self.rank}"
            )
        if self.rank * (tokens + features) >= tokens * features:
            return f"two matrices of rank {self.rank} are no smaller than its {tokens}x{features}: give less"
        return ""


def _nothing(program: Program) -> str:
    if not any(spec.role in IDS for spec in program.inputs):
        return "the model takes no ids of tokens"
    return "no embedding was recognised that ids of tokens are looked up in"
