"""quantize-product's work on the fx graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ....ir.fx.graph import prune
from ....ir.program import Program
from ...common.fx_weights import Matrix, choose, grouped
from ...manager.contract import Context, Result
from ...recover.teaching.distil import Teacher, distil, own_vectors, spread
from ..codes.fx_decode import Coded, bytes_of, narrow, write
from .activations import statistics
from .codebook import codebook

if TYPE_CHECKING:
    from ..quantize_product import QuantizeProduct

OBSERVED = 16  # feeds whose activations are looked at, at most


def quantize(options: QuantizeProduct, program: Program, context: Context) -> Result:
    """Edits the program's graph."""
    chosen, notes = choose(program, context, lambda matrix: unfit(options, matrix))
    if not chosen:
        return Result(program, False, notes=tuple(notes))
    teacher = Teacher.of(program, context)
    groups = grouped(program, chosen)
    total = len(groups) * options.steps + options.finish
    coded: list[Coded] = []
    vectors = own_vectors(program.graph) if total else []
    done = 0

    def learn(steps: int) -> None:
        nonlocal done
        if steps:
            tables = [program.graph.get_parameter(str(one.table.target)) for one in coded]
            student = teacher.watched(program.graph)
            say = lambda step, loss: context.progress("learning centroids", done + step, total)
            distil(teacher, student, [*tables, *vectors], steps, options.rate, say)
            done += steps

    for group in groups:
        coded += _code(options, program, group, context)
        learn(options.steps)
    untaught = teacher.measure(program.graph)
    learn(options.finish)
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


def _block(options: QuantizeProduct, matrix: Matrix) -> int:
    wanted = (options.embedding_block or options.block) if matrix.lookups else options.block
    return next(size for size in range(min(wanted, matrix.columns), 0, -1) if matrix.columns % size == 0)


def unfit(options: QuantizeProduct, matrix: Matrix) -> str:
    """Why a matrix stays in float; empty if it does not."""
    if matrix.lookups and not options.embeddings:
        return "tables are left out (embeddings=false)"
    block, numbers = _block(options, matrix), matrix.tensor.numel()
    coded = numbers // block + 2 * block * min(options.centroids, numbers // block)
    if coded >= matrix.tensor.nbytes:
        return f"codes and centroids would take {coded} bytes, and it takes {matrix.tensor.nbytes}"
    return ""


def _code(
    options: QuantizeProduct, program: Program, group: Sequence[Matrix], context: Context
) -> list[Coded]:
    feeds = spread(context.calibration, OBSERVED)
    seen = statistics(program, group, feeds) if feeds else {}
    coded = []
    for matrix in group:
        gram, counts = seen.get(matrix.name, (None, None))
        codes, table = codebook(
            matrix.numbers().numpy(),
            _block(options, matrix),
            options.centroids,
            gram=gram,
            importance=None if counts is None else 1 + counts,
            seed=context.seed,
        )
        parameter = torch.nn.Parameter(torch.from_numpy(table))
        coded.append(write(program.graph, matrix, torch.from_numpy(codes), parameter))
    prune(program.graph)
    return coded
