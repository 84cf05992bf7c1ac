"""Real activations, streamed from the calibration feeds through the graph.

One feed's activations are alive at a time, so that memory does not grow with the number of feeds. Padding is
left out: what a model computes there, nobody reads. So are rows that are not finite, such as those of
queries that may look at nothing (hidden_rows.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ...ir.errors import DataError
from ...ir.execute import observe
from ...ir.inputs.masks import masks_along, real_tokens
from ...ir.inputs.memory import remembering
from ...ir.program import Program
from ...ir.spec import MASKS
from ..manager.contract import Context, Feed

_STRUCTURE = (
    *MASKS,
    "mask",
    "token_type_ids",
    "position_ids",
    "memory",
)  # may be constant in the best of data
_ROWS_TO_CUT, _FEEDS_TO_CUT = 8, 4  # fewer rows, or feeds of a fixed batch, are not cut in two
_MEND = "give it real inputs (Context(calibration=feeds), --data FILE)"


class Collector(Protocol):
    """Takes in the rows of one value, in parts (ranges.Estimator does)."""

    def update(self, values: np.ndarray) -> None: ...


def calibrate(program: Program, collectors: Mapping[str, Collector], context: Context) -> None:
    """Show every collector its value's rows, over all calibration feeds.

    Args:
        collectors: by the name of a value of the main graph.

    Raises:
        DataError: as `check`; or a value has no finite row.
    """
    check(program, context.calibration)
    require(show(program, collectors, context.calibration, context))


def show(
    program: Program, collectors: Mapping[str, Collector], feeds: Sequence[Feed], context: Context
) -> dict[str, int]:
    """Show every collector its value's rows over feeds that were checked; how many rows each saw."""
    seen = dict.fromkeys(collectors, 0)
    for rows in _rows(program, list(collectors), feeds, context):
        for name, array in rows.items():
            collectors[name].update(array)
            seen[name] += len(array)
    return seen


def require(seen: Mapping[str, int]) -> None:
    """Refuse values of which no row was seen.

    Raises:
        DataError: names the value.
    """
    for name, count in seen.items():
        if count == 0:
            raise DataError(
                f"the calibration data leaves '{name}' without one finite row: check the model's weights and "
                "the attention masks"
            )


def held_out(program: Program, feeds: Sequence[Feed]) -> tuple[list[Feed], list[Feed]]:
    """Feeds cut in two: for ranges, and, every fourth row, to measure on what no range was taken from.

    Where the batch is fixed every fourth feed is held out. Few rows, or few feeds, are not cut.
    """
    first = {spec.shape[0] if spec.shape else 1 for spec in program.inputs}
    if len(first) == 1 and isinstance(next(iter(first)), str):
        rows = [len(next(iter(feed.values()))) for feed in feeds]
        if sum(rows) < _ROWS_TO_CUT:
            return list(feeds), []
        places = np.split(np.arange(sum(rows)) % 4 == 3, np.cumsum(rows)[:-1])
        kept = [_some(feed, ~held) for feed, held in zip(feeds, places, strict=True) if not held.all()]
        return kept, [_some(feed, held) for feed, held in zip(feeds, places, strict=True) if held.any()]
    if len(feeds) < _FEEDS_TO_CUT:
        return list(feeds), []
    return [f for n, f in enumerate(feeds) if n % 4 != 3], [f for n, f in enumerate(feeds) if n % 4 == 3]


def _some(feed: Feed, rows: np.ndarray) -> Feed:
    return {name: array[rows] for name, array in feed.items()}


def activations(program: Program, names: Sequence[str], context: Context) -> Iterator[dict[str, np.ndarray]]:
    """Finite rows of values at real tokens, feed by feed: (rows, features) each.

    Args:
        names: of values of the main graph with features on their last axis; constants are not among them.

    Raises:
        DataError: the calibration data are empty, constant, NaN, or smaller than the graph's fixed sizes.
    """
    check(program, context.calibration)
    yield from _rows(program, names, context.calibration, context)


def _rows(
    program: Program, names: Sequence[str], feeds: Sequence[Feed], context: Context
) -> Iterator[dict[str, np.ndarray]]:
    on: deque[Feed] = deque(maxlen=1)  # the feed that the graph is run on

    def fitting() -> Iterator[Feed]:
        for number, feed in enumerate(feeds):
            context.progress("calibrating", number, len(feeds))
            if fits(program, number, feed):
                on.append(feed)
                yield feed

    for found in observe(program, names, fitting(), context.threads):
        yield {name: real_rows(program, on[0], array) for name, array in found.items()}


def check(program: Program, feeds: Sequence[Feed]) -> None:
    """Refuse data that no range can be taken from.

    Raises:
        DataError: names what is wrong with the data, and the mend.
    """
    variety = {spec.name: _Variety() for spec in program.inputs if spec.role not in _STRUCTURE}
    rows = 0
    for number, feed in enumerate(feeds):
        feed = remembering(program.inputs, feed)
        if not fits(program, number, feed):
            continue
        rows += max((len(feed[spec.name]) for spec in program.inputs if feed[spec.name].ndim), default=1)
        for spec in program.inputs:
            array = feed[spec.name]
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(
                    f"calibration feed {number + 1} has NaN or infinite values in '{spec.name}': repair it "
                    "or leave it out"
                )
        masks = _masks(program, feed)
        if masks and not any(mask.any() for mask in masks):
            raise DataError(f"calibration feed {number + 1} is all padding: leave it out")
        for name, seen in variety.items():
            seen.look(feed[name], masks)
    if rows == 0:
        raise DataError(
            f"the calibration data are {'too short' if feeds else 'empty'}: {_mend(program, feeds)}"
        )
    if variety and all(seen.constant for seen in variety.values()):
        what = f"all {rows} rows are the same" if rows > 1 else "it is one value over and over"
        raise DataError(f"the calibration data are constant, {what}: give it different inputs")


def _mend(program: Program, feeds: Sequence[Feed]) -> str:
    if not feeds or not any(len(array) for array in feeds[0].values() if array.ndim):
        return _MEND
    batch = next(spec.shape[0] for spec in program.inputs if spec.shape and isinstance(spec.shape[0], int))
    return (
        f"the graph takes batches of {batch} and no feed has as many rows: give it more, or put "
        "specialise-shapes after this pass"
    )


def fits(program: Program, number: int, feed: Feed) -> bool:
    """Whether a feed has rows, and as many as the graph takes.

    Raises:
        DataError: an input is missing, or another axis than the first does not fit.
    """
    whole, feed = True, remembering(program.inputs, feed)
    for spec in program.inputs:
        if spec.name not in feed:
            raise DataError(f"calibration feed {number + 1} has no '{spec.name}', which the model takes")
        shape = feed[spec.name].shape
        if len(shape) != len(spec.shape) or any(
            isinstance(due, int) and due != size for due, size in zip(spec.shape[1:], shape[1:], strict=True)
        ):
            raise DataError(
                f"calibration feed {number + 1}: '{spec.name}' is {shape} and the graph takes {spec.shape}: "
                "give it feeds of that shape, or put specialise-shapes after this pass"
            )
        if shape and (shape[0] == 0 or (isinstance(spec.shape[0], int) and shape[0] != spec.shape[0])):
            whole = False
    return whole


def real_rows(program: Program, feed: Feed, value: np.ndarray) -> np.ndarray:
    """(rows, features) of a value at the places that some mask keeps, without what is not finite."""
    kept: np.ndarray | None = None
    places = masks_along(program.inputs, feed, value.shape[:-1])
    if value.ndim == 2:  # rows flattened before a product
        masks = real_tokens(program.inputs, feed).values()
        places += [real.reshape(-1) for real in masks if real.size == len(value)]
    for place in places:  # an encoder's and a decoder's mask of one shape: nothing tells whose value it is
        kept = place if kept is None else kept | place
    rows = (value if kept is None else value[kept]).reshape(-1, value.shape[-1])
    return rows[np.isfinite(rows).all(axis=1)]


def _masks(program: Program, feed: Feed) -> list[np.ndarray]:
    """True at real tokens."""
    return list(real_tokens(program.inputs, feed).values())


class _Variety:
    """Whether anything in an input differs, within its rows and between them."""

    def __init__(self) -> None:
        self._first: np.ndarray | None = None
        self._rows = 0
        self._within = self._between = False

    @property
    def constant(self) -> bool:
        return not self._within or (self._rows > 1 and not self._between)

    def look(self, array: np.ndarray, masks: Iterable[np.ndarray]) -> None:
        self._rows += len(array) if array.ndim else 1
        if self._within and self._between:
            return
        mask = next((mask for mask in masks if mask.shape == array.shape), None)
        for number, row in enumerate(array if array.ndim else [array]):
            real = (row if mask is None else row[mask[number]]).reshape(-1)
            if real.size == 0:
                continue
            if self._first is None:
                self._first = real.copy()
            self._within |= bool((real != real[0]).any())
            self._between |= not np.array_equal(real, self._first)


def spread(feeds: Sequence[Feed], count: int) -> list[Feed]:
    """So many feeds at most, from all along the sequence: it may be sorted by length."""
    return [feeds[i * len(feeds) // count] for i in range(count)] if len(feeds) > count else list(feeds)
