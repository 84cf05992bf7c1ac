"""A candidate, what is found of it, and how it comes to be found whatever goes wrong."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from ...ir.errors import GraphwrightError
from ...passes.manager.pipeline import Pipeline
from .goal import Values
from .space import Choices
from .tried import Tried


@dataclass(frozen=True)
class Candidate:
    """choices: those that its pipeline depends on."""

    number: int
    pipeline: Pipeline
    runtime: str
    choices: Choices


@dataclass(frozen=True)
class Found:
    """What was found of a candidate. values: of all that the goal asks for, where it is complete. save:
    writes its bundle to a folder; None writes none. seconds: that it took."""

    values: Values
    state: Literal["complete", "pruned", "refused"] = "complete"
    why: str = ""
    save: Callable[[Path], None] | None = field(default=None, compare=False)
    seconds: float = 0.0


class Evaluate(Protocol):
    """Makes a candidate, measures and judges it: the one thing that takes time in a search.

    Raises:
        GraphwrightError: it can't be made.
    """

    def __call__(self, candidate: Candidate, known: Sequence[Tried]) -> Found: ...


class Workers(Protocol):
    """Where candidates are made, one or several at once.

    at_once: so many. ahead: how many trials may have begun that are not told: each is decided from those at
    least so far back. apart: whether other processes make them, so that this one's end says nothing against a
    candidate. shared: what all candidates are told by, as `prepare` of what makes them takes it.
    """

    at_once: int
    ahead: int
    apart: bool
    shared: Any

    def several(self, at_once: int) -> None:
        """Begin as many trials ahead as so many at once need."""

    def ask(self, name: str) -> Any:
        """What a method of what makes candidates gives."""

    def start(self, candidate: Candidate, known: Sequence[Tried]) -> None:
        """Have a candidate made, now or when it can be."""

    def wait(self) -> tuple[int, Found | None]:
        """The number of a candidate that has come to its end. None: what made it was lost, and it was not."""


def window(at_once: int) -> int:
    """How many trials may have begun and not be told: one more for each that is made at once, so that none
    waits for the slowest."""
    return 1 if at_once == 1 else 2 * at_once


class Here:
    """This process makes one at a time."""

    at_once, ahead, apart = 1, 1, False

    def __init__(self, evaluate: Any) -> None:
        self._evaluate = evaluate
        self._queue: deque[tuple[Candidate, Sequence[Tried]]] = deque()
        self.shared: Any = None

    def several(self, at_once: int) -> None:
        self.ahead = window(at_once)

    def ask(self, name: str) -> Any:
        return getattr(self._evaluate, name)()

    def start(self, candidate: Candidate, known: Sequence[Tried]) -> None:
        self._queue.append((candidate, known))

    def wait(self) -> tuple[int, Found | None]:
        candidate, known = self._queue.popleft()
        if self.shared is not None:
            self._evaluate.prepare(self.shared)
        return candidate.number, found(self._evaluate, candidate, known)


def found(evaluate: Evaluate, candidate: Candidate, known: Sequence[Tried]) -> Found:
    """What is found of a candidate. What goes wrong in it refuses it, and the search goes on."""
    began = time.monotonic()
    try:
        made = evaluate(candidate, known)
    except GraphwrightError as error:
        made = Found({}, "refused", str(error))
    except MemoryError:
        made = Found({}, "refused", "there is not enough memory for it")
    except Exception as error:  # of a library: the search goes on, and the record says what it was
        said = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        made = Found({}, "refused", said)
    strange = [name for name, value in made.values.items() if not math.isfinite(value)]
    if strange:
        made = Found({}, "refused", f"its {strange[0]} is {made.values[strange[0]]}")
    return replace(made, seconds=time.monotonic() - began)
