"""What a person sees while a search works: one line of progress, a sentence for each new member of the front
and for each way in which a candidate could not be made."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...passes.manager.contract import Exact
from ...passes.manager.pipeline import Pipeline
from ..console import Console
from .explore import Limits
from .front import Front
from .goal import METRICS
from .tried import Tried


class Watching(Console):
    """A console for the inside of trials: their notes are left away, their progress follows the search's."""

    def __init__(self, outer: Console) -> None:
        super().__init__(quiet=outer.quiet, json=outer.json)
        self._outer, self._line, self._limits = outer, "", Limits()
        self._done, self._spent, self._since = 0, 0.0, time.monotonic()
        self._members: set[int] | None = None
        self._whys: set[str] = set()

    def begin(self, limits: Limits) -> None:
        self._limits = limits

    def say(self, sentence: str) -> None:
        """Nothing: a search of hundreds of trials would say it hundreds of times."""

    def progress(self, description: str, done: int = 0, total: int = 0) -> None:
        line = f"{self._line}: {description}" if self._line else description
        if self._limits.seconds is not None:
            spent = self._spent + time.monotonic() - self._since
            self._outer.progress(line, int(spent), int(self._limits.seconds))
        else:
            self._outer.progress(line, self._done, self._limits.trials or 0)

    def after(self, known: Sequence[Tried], found: Front) -> None:
        """Called after each trial."""
        done = [one for one in known if one.state != "running"]
        self._done, self._spent = len(done), self._limits.spent(known)
        self._since = time.monotonic()
        self._line = f"{len(done)} trials, {self._best(found)}, {self._left()}"
        for one in found.members:
            if self._members is not None and one.number not in self._members:
                self._outer.say(f"Trial {one.number} is on the front: {told(one)}. {lossy(one)}")
        for one in done:
            failed = one.state == "refused" and one.seconds > 0  # else a contract forbids it
            if failed and one.why not in self._whys and self._members is not None:
                self._outer.say(f"Trial {one.number} could not be made: {one.why}. {lossy(one)}")
            self._whys |= {one.why} if failed else set()
        self._members = {one.number for one in found.members}
        self.progress("deciding")

    def _best(self, found: Front) -> str:
        if not found.members:
            return f"{found.distance:.0%} from the goal" if found.nearest else "nothing measured yet"
        numbers = {one.number: one for one in found.members}
        return "best " + ", ".join(
            said(key, numbers[number].values[key]) for key, number in found.best.items()
        )

    def _left(self) -> str:
        if self._limits.seconds is None:
            return f"{(self._limits.trials or 0) - self._done} trials left"
        return f"{max(0.0, self._limits.seconds - self._spent) / 60:.0f} minutes left"


def said(key: str, value: float) -> str:
    """A value as people read it."""
    metric, _, workload = key.partition("@")
    if metric == "drop":
        return f"{value:.2f} points lost"
    return f"{value:.3g} {next(iter(METRICS[metric].units))}" + (f" at {workload}" if workload else "")


def told(one: Tried) -> str:
    """A trial's values that people read."""
    keys = [
        key for name in ("latency", "size", "drop") for key in one.values if key.partition("@")[0] == name
    ]
    return ", ".join(said(key, one.values[key]) for key in keys)


def lossy(one: Tried) -> str:
    """A trial's pipeline without what every other has: the passes that change what is computed."""
    passes = Pipeline.parse(one.pipeline).passes
    return (
        str(Pipeline(each for each in passes if not isinstance(each.effect, Exact))) or "exact passes alone"
    )
