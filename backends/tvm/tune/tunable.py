"""Kernels whose tile may be searched for: what they tell, what a build asked of them, and the search."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ....ir.errors import GraphwrightError
from ...target import Target
from ..run.executor import Executor
from .search import Timer, search
from .tiles import lookup, record

_asked: ContextVar[dict[Question, None] | None] = ContextVar("asked", default=None)


@dataclass(frozen=True)
class Tunable:
    """A kernel of the library as the search sees it.

    candidates: (shape, dtype, target) -> tiles, the analytic choice first; a tile is a dictionary of what
    JSON can hold. build: (shape, dtype, target, tile) -> what times turns of it here (`search.timer`).
    rivals: as candidates, the few of which only measurement tells the faster: a build for this machine times
    them, where nothing is on record.
    """

    kernel: str
    candidates: Callable[[Sequence[int], str, Target], Sequence[dict[str, Any]]]
    build: Callable[[Sequence[int], str, Target, dict[str, Any]], Timer]
    rivals: Callable[[Sequence[int], str, Target], Sequence[dict[str, Any]]] = lambda *_: ()


@dataclass(frozen=True)
class Question:
    """Which tile? target.cores: the threads that share the work."""

    tunable: Tunable
    shape: tuple[int, ...]
    dtype: str
    target: Target

    def __str__(self) -> str:
        return f"{self.tunable.kernel} {'x'.join(map(str, self.shape))} {self.dtype}"


def choose(tunable: Tunable, shape: Sequence[int], dtype: str, target: Target) -> dict[str, Any]:
    """The tile to build a kernel with: the one on record, else the faster rival, else the analytic choice."""
    question = Question(tunable, tuple(shape), dtype, target)
    seen = _asked.get()
    if seen is not None:
        seen[question] = None
    found = lookup(tunable.kernel, shape, dtype, target)
    if found is None and seen is None and target.name == "host" and not target.processor:
        found = _settled(question)
    return found if found is not None else dict(tunable.candidates(shape, dtype, target)[0])


def _settled(question: Question) -> dict[str, Any] | None:
    """The faster of a question's rivals, timed once and kept apart from what a search finds; None: it has
    none."""
    tunable, named = question.tunable, (question.shape, question.dtype, question.target)
    rivals = [dict(tile) for tile in tunable.rivals(*named)]
    if len(rivals) < 2:
        return None
    kernel = f"{tunable.kernel}, rivals"
    if (found := lookup(kernel, *named)) is not None:
        return found
    tile, gain = _fastest(question, rivals)
    with contextlib.suppress(GraphwrightError):  # a build goes on without a cache
        record(kernel, *named, tile, gain)
    return tile


@contextmanager
def asked() -> Iterator[dict[Question, None]]:
    """Collects every question that `choose` answers meanwhile, in order, each once."""
    seen: dict[Question, None] = {}
    token = _asked.set(seen)
    try:
        yield seen
    finally:
        _asked.reset(token)


def tune_tiles(
    questions: Iterable[Question],
    progress: Callable[[str, int, int], None] = lambda description, done, total: None,
) -> Iterator[tuple[Question, float]]:
    """Searches a tile for each question that nothing on record answers, and records it at once.

    Yields:
        The question, and times as fast as the analytic choice what was found is.

    Raises:
        GraphwrightError: the record can't be written.
    """
    open_questions = [q for q in questions if lookup(q.tunable.kernel, q.shape, q.dtype, q.target) is None]
    for number, question in enumerate(open_questions):
        progress(str(question), number, len(open_questions))
        yield question, _tune(question)


def _tune(question: Question) -> float:
    tunable = question.tunable
    named = (question.shape, question.dtype, question.target)
    tiles = [dict(tile) for tile in tunable.candidates(*named)]
    tile, gain = _fastest(question, tiles)
    record(tunable.kernel, *named, tile, gain)
    return gain


def _fastest(question: Question, tiles: list[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The fastest of some tiles, and times as fast as the first that it is."""
    named = (question.shape, question.dtype, question.target)
    there = Executor(question.target.cores, lambda: None)

    def build(tile: dict[str, Any]) -> Timer:
        turn = there.do(lambda _: question.tunable.build(*named, tile))
        return lambda: there.do(lambda _: turn())

    return search(tiles[1:], build, tiles[0])
