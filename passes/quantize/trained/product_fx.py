"""quantize-product's work on the fx graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ....ir.fx.graph import prune
from ....ir.program import Program
from ...common.calibration import spread
from ...common.fx_activations import statistics
from ...common.fx_weights import Matrix, choose, grouped
from ...manager.contract import Context, Result
from ...recover.teaching.imitation import Teacher, imitate, own_vectors
from ...recover.training.trainer import Progress
from ..codes.fx_decode import CodedMatrix, bytes_of, narrow, write
from .codebook import codebook

OBSERVED = 16  # feeds whose activations are looked at, at most


@dataclass(frozen=True)
class Runs:
    """How many columns a code stands for, of how many centroids (the options of quantize-product)."""

    block: int
    embedding_block: int
    centroids: int
    embeddings: bool

    def of(self, matrix: Matrix) -> int:
        """The columns to a code of a matrix."""
        wanted = (self.embedding_block or self.block) if matrix.lookups else self.block
        return next(size for size in range(min(wanted, matrix.columns), 0, -1) if matrix.columns % size == 0)

    def unfit(self, matrix: Matrix) -> str:
        """Why a matrix stays in float; empty if it does not."""
        if matrix.lookups and not self.embeddings:
            return "tables are left out (embeddings=false)"
        block, numbers = self.of(matrix), matrix.tensor.numel()
        coded = numbers // block + 2 * block * min(self.centroids, numbers // block)
        if coded >= matrix.tensor.nbytes:
            return f"codes and centroids would take {coded} bytes, and it takes {matrix.tensor.nbytes}"
        return ""


def quantize(
    program: Program, context: Context, runs: Runs, *, steps: int, finish: int, rate: float
) -> Result:
    """Edits the program's graph.

    Args:
        steps: of learning after each group of weights. finish: after the last. rate: of learning.
    """
    chosen, notes = choose(program, context, runs.unfit)
    if not chosen:
        return Result(program, False, notes=tuple(notes))
    teacher = Teacher.of(program, context)
    groups = grouped(program, chosen)
    total = len(groups) * steps + finish
    coded: list[CodedMatrix] = []
    vectors = own_vectors(program.graph) if total else []
    done = 0

    def learn(count: int) -> None:
        nonlocal done
        if count:
            tables = [program.graph.get_parameter(str(one.table.target)) for one in coded]
            student = teacher.watched(program.graph)
            say: Progress = lambda text, step, _: context.progress(text, done + step, total)
            imitate(
                teacher, student, [*tables, *vectors], count, rate, progress=say, title="learning centroids"
            )
            done += count

    for group in groups:
        coded += _code(runs, program, group, context)
        learn(steps)
    untaught = teacher.measure(program.graph)
    learn(finish)
    narrow(program.graph, *(one.table for one in coded))
    program.graph.recompile()
    after = teacher.measure(program.graph)
    numbers = sum(matrix.tensor.numel() for matrix in chosen)
    stored = sum(bytes_of(program.graph, one) for one in coded)
    statistics: dict[str, int | float | str] = {
        "weights coded": len(chosen),
        "bits a weight": round(8 * stored / numbers, 3),
        "times smaller": round(sum(m.tensor.nbytes for m in chosen) / stored, 2),
        "cosine before the last steps": round(untaught.cosine, 5),
        "cosine": round(after.cosine, 5),
    }
    return Result(program, True, statistics, tuple(notes))


def _code(runs: Runs, program: Program, group: Sequence[Matrix], context: Context) -> list[CodedMatrix]:
    feeds = spread(context.calibration, OBSERVED)
    seen = statistics(program, group, feeds) if feeds else {}
    coded = []
    for matrix in group:
        gram, counts = seen.get(matrix.name, (None, None))
        codes, table = codebook(
            matrix.numbers().numpy(),
            runs.of(matrix),
            runs.centroids,
            gram=gram,
            importance=None if counts is None else 1 + counts,
            seed=context.seed,
        )
        parameter = torch.nn.Parameter(torch.from_numpy(table))
        coded.append(write(program.graph, matrix, torch.from_numpy(codes), parameter))
    prune(program.graph)
    return coded
