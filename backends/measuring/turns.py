"""Turns of contestants within one run: A B, B A, A B, ... until the answers are settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .process import Warmed
from .ratios import ENOUGH, FEWEST, Speedup, speedup

CLOSE, SAME = 0.05, 0.02  # how far a settled interval reaches from its median; where it may hold 1


@dataclass
class Taken:
    """Of one contestant at one workload. seconds: the median of each turn. disturbed: whether others' work
    disturbed it. joules: of a call, of each turn that tells. calls: seconds of every timed call."""

    seconds: list[float] = field(default_factory=list)
    disturbed: list[bool] = field(default_factory=list)
    joules: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)

    def over(self, other: Taken) -> Speedup:
        """How many times faster this is than another of the same rounds, of which there are as many."""
        return speedup(other.seconds, self.seconds, self.beside(other))

    def beside(self, other: Taken) -> tuple[bool, ...]:
        """The rounds in which one of the two was disturbed."""
        return tuple(a or b for a, b in zip(self.disturbed, other.disturbed, strict=True))


class Turns:
    """Asks contestants for times in turn.

    A turn that others' work disturbed is taken again at once, for each workload as often as it has turns in
    half of its rounds: on a machine that stays loud, measuring takes half as long again.

    taken: by (contestant, workload). peak: largest resident bytes of each contestant.

    Args:
        names: of the contestants; the first is what the others are compared with.
        feeds: workload -> file.
        rounds: at most. runs, seconds: of a turn.
        warmed: what lets a contestant take warm turns.
        progress: called with (description, done, total).
    """

    def __init__(
        self,
        names: Sequence[str],
        feeds: Mapping[str, str],
        rounds: int,
        runs: int,
        seconds: float,
        warmed: Callable[[Any], Warmed],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.names, self.feeds, self.rounds = list(names), feeds, rounds
        self.taken = {(name, work): Taken() for name in names for work in feeds}
        self.peak = dict.fromkeys(names, 0)
        self._runs, self._seconds, self._warmed, self._progress = runs, seconds, warmed, progress
        self._spare = dict.fromkeys(feeds, rounds * len(self.names) // 2)
        self._done, self._total = 0, rounds * len(self.taken)

    def side_by_side(self, start: Callable[[str], Any]) -> None:
        """Every contestant loaded once; rounds of a workload end where they are settled.

        Once more, and as many rounds again, where a ratio near 1 is said not to be 1: where its memory lies
        makes a process a few hundredths faster or slower than the next one of the same.
        """
        self._rounds(list(self.feeds), start)
        near = [work for work in self.feeds if self._near(work)]
        if near:
            self._total += self.rounds * len(self.names) * len(near)
            self._rounds(near, start, least=ENOUGH)
        self._progress("measured", self._total, self._total)

    def _rounds(self, works: Sequence[str], start: Callable[[str], Any], least: int = 1) -> None:
        with ExitStack() as stack:
            workers = {name: self._warmed(stack.enter_context(start(name))) for name in self.names}
            for work in works:
                done = self._done + self.rounds * len(self.names)
                for number in range(self.rounds):
                    for name in self._order(number):
                        self._turn(workers[name], name, work)
                    if number + 1 >= least and self._settled(work):
                        break
                self._done = done

    def one_at_a_time(self, start: Callable[[str], Any]) -> None:
        """Every contestant loaded anew each round, where memory holds one of them."""
        for number in range(self.rounds):
            for name in self._order(number):
                with start(name) as loaded:
                    worker = self._warmed(loaded)
                    for work in self.feeds:
                        self._turn(worker, name, work)
        self._progress("measured", self._total, self._total)

    def _order(self, number: int) -> list[str]:
        """Every other round backwards: whoever comes second would otherwise always find the caches as the
        first left them."""
        return self.names[::-1] if number % 2 else self.names

    def _turn(self, worker: Warmed, name: str, work: str) -> None:
        self._progress(f"{name} at {work}", self._done, self._total)
        answer = worker.time(self.feeds[work], self._runs, self._seconds)
        if answer["disturbed"] and self._spare[work]:
            self._spare[work] -= 1
            answer = worker.time(self.feeds[work], self._runs, self._seconds)
        taken = self.taken[name, work]
        taken.seconds.append(float(np.median(answer["seconds"])))
        taken.calls += answer["seconds"]
        taken.disturbed.append(answer["disturbed"])
        self.peak[name] = max(self.peak[name], answer["peak_bytes"])
        if answer["joules"] is not None:
            taken.joules.append(answer["joules"])
        self._done += 1

    def _near(self, work: str) -> bool:
        """Whether there are rounds enough to tell a contestant from the first, and it is within 5% of it."""
        first, *others = (self.taken[name, work] for name in self.names)
        if len(first.seconds) < FEWEST:
            return False
        ratios = [each.over(first) for each in others]
        return any(
            not ratio.interval[0] <= 1 <= ratio.interval[1] and abs(ratio.median - 1) <= CLOSE
            for ratio in ratios
        )

    def _settled(self, work: str) -> bool:
        """Whether further rounds would tell nothing more: every ratio stands clear of 1 and is known to 5%,
        or lies within 2% of its median."""
        first, *others = (self.taken[name, work] for name in self.names)
        if not others or len(first.seconds) < FEWEST:
            return False
        return all(_close(each.over(first)) for each in others)


def _close(ratio: Speedup) -> bool:
    low, high = ratio.interval
    reach = SAME if low <= 1 <= high else CLOSE
    return low >= (1 - reach) * ratio.median and high <= (1 + reach) * ratio.median
