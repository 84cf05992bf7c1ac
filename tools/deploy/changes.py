"""What changed between two builds of one name, and which of it is a regression.

A time has an interval, and so has the difference: a build is slower where even the best end of the new
interval is worse than the worst end of the old one, by more than two runs of one graph differ. What lies
within is noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .facts import Call, Facts

NOISE = 0.02  # of a time: what processes of one and the same graph differ by, which no round of one shows
GROWN = 0.01  # of a bundle's size, from which on it is larger: counts of bytes have no noise, compression has
POINTS = 0.1  # of quality, from which on it is worse


@dataclass(frozen=True)
class Change:
    """what: faster, slower, smaller, larger, better or worse. told: from what to what, in a few words."""

    what: str
    told: str

    @property
    def regression(self) -> bool:
        return self.what in ("slower", "larger", "worse")


def changes(old: Facts, new: Facts) -> list[Change]:
    """Everything that is beyond its interval, regressions first."""
    found = [*_times(old, new)]
    if old.size and abs(new.size / old.size - 1) > GROWN:
        what = "larger" if new.size > old.size else "smaller"
        found.append(Change(what, f"{old.size / 1e6:.2f} to {new.size / 1e6:.2f} MB"))
    lost = (old.drop or 0.0, new.drop or 0.0)
    judged = None not in (old.drop, new.drop) and old.metric == new.metric
    if judged and abs(lost[1] - lost[0]) > POINTS:
        what = "worse" if lost[1] > lost[0] else "better"
        found.append(Change(what, f"{lost[0]:.2f} to {lost[1]:.2f} points of {new.metric} lost"))
    return sorted(found, key=lambda change: not change.regression)


def _times(old: Facts, new: Facts) -> Iterator[Change]:
    """Speed-ups over the same contestant, measured beside it, hold on any day; times only of one place."""
    for work, call in new.calls.items():
        before = old.calls.get(work)
        if before is None:
            continue
        if before.interval and call.interval and old.against == new.against:
            yield from _ratio(work, before, call, new.against)
        elif old.where == new.where:
            yield from _alone(work, before, call)


def _ratio(work: str, old: Call, new: Call, against: str) -> Iterator[Change]:
    assert old.interval
    assert new.interval
    told = f"{old.speedup:.2f} to {new.speedup:.2f} times {against} at {work}"
    if new.interval[1] < (1 - NOISE) * old.interval[0]:
        yield Change("slower", told)
    elif new.interval[0] > (1 + NOISE) * old.interval[1]:
        yield Change("faster", told)


def _alone(work: str, old: Call, new: Call) -> Iterator[Change]:
    """Of quartiles, which is what there is of a time by itself."""
    told = f"{old.ms:.3g} to {new.ms:.3g} ms at {work}"
    if new.ms_quartiles[0] > (1 + NOISE) * old.ms_quartiles[1]:
        yield Change("slower", told)
    elif new.ms_quartiles[1] < (1 - NOISE) * old.ms_quartiles[0]:
        yield Change("faster", told)
