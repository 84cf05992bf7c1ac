"""Which layers a program can best do without, by trying."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ....ir.blocks.stream import Stream
from ....ir.errors import PassError
from ....ir.evaluated import evaluated
from ....ir.execute import execute
from ....ir.program import Program
from ...common.calibration import spread
from ...manager.contract import Context
from ...quantize.int8.sensitivity import distance
from ..surgery.remove_layers import remove_layers

FEEDS = 8  # of the calibration data, at most, that a choice is judged on
Removed = frozenset[tuple[int, int]]  # (stream, layer)


def search(
    program: Program, streams: Sequence[Stream], keep: Sequence[int], beam: int, context: Context
) -> list[list[int]]:
    """The layers to keep of each stream: one layer less at a time, each choice tried as a program.

    Args:
        streams: of this program. keep: how many layers of each.
        beam: of choices with equally many layers, how many are gone on with, best first.

    Raises:
        PassError: there is nothing to judge by.
    """
    quality = _quality(program, context)
    surplus = [len(stream.layers) - count for stream, count in zip(streams, keep, strict=True)]
    best: list[Removed] = [frozenset()]
    for step in range(sum(surplus)):
        found: dict[Removed, float] = {}
        for removed in best:
            for choice in _next(removed, streams, surplus):
                if choice not in found:
                    candidate = program.clone()
                    remove_layers(candidate, [streams[s].layers[n] for s, n in sorted(choice)])
                    found[choice] = quality(candidate)
                    context.progress("trying layers", step, sum(surplus))
        best = sorted(found, key=lambda choice: (-found[choice], sorted(choice)))[:beam]
    return [[n for n in range(len(s.layers)) if (i, n) not in best[0]] for i, s in enumerate(streams)]


def _next(removed: Removed, streams: Sequence[Stream], surplus: Sequence[int]) -> list[Removed]:
    """Every choice of one layer more."""
    return [
        removed | {(i, n)}
        for i, stream in enumerate(streams)
        if sum(s == i for s, _ in removed) < surplus[i]
        for n in range(len(stream.layers))
        if (i, n) not in removed
    ]


def _quality(program: Program, context: Context) -> Callable[[Program], float]:
    """The user's score; without one, the mean cosine between outputs and the program's own."""
    if context.score is not None:
        return context.score
    if not context.calibration:
        raise PassError(
            "which layers cost least cannot be tried without data: give it real inputs "
            "(Context(calibration=feeds), --data FILE), or choose=every-other"
        )
    feeds = spread(context.calibration, FEEDS)
    expected = execute(evaluated(program), feeds)
    return lambda candidate: 1 - distance(program, feeds, expected, execute(evaluated(candidate), feeds))
