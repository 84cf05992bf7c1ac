"""What a search is for: limits that every bundle must keep, and what is to become small within them.

    goal     := limit ("," limit)*
    limit    := metric ("<=" | ">=") number [unit] ["@" workload]
    minimise := metric ["@" workload] ("," metric ["@" workload])*

As in `latency<=5ms@1x128, drop<=1.0, size<=20MB`. A metric of a call has a workload: the run's first one
where none is named.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...backends.measuring.workloads import names_in
from ...ir.errors import ConfigError, MeasureError, did_you_mean, short

Values = Mapping[str, float]  # by key: "size", "latency@1x128"
MEGABYTE = 1e6  # bytes: sizes are told in it


@dataclass(frozen=True)
class Metric:
    """units: how many of the first, which a limit is kept in, go into each. bound: which side is good.
    of_call: whether every workload has one. least: what no bundle can be below."""

    units: Mapping[str, float]
    bound: Literal["<=", ">="]
    of_call: bool
    least: float
    said: str


METRICS: dict[str, Metric] = {
    "latency": Metric({"ms": 1, "s": 1e3, "us": 1e-3}, "<=", True, 0, "milliseconds of a call"),
    "speedup": Metric({"x": 1}, ">=", True, 0, "times as fast as the un-rewritten export"),
    "drop": Metric({"points": 1}, "<=", False, -math.inf, "points of quality lost"),
    "size": Metric({"MB": 1, "B": 1e-6, "KB": 1e-3, "GB": 1e3}, "<=", False, 0, "weights on disk"),
}
_LIMIT = re.compile(
    r"\s*([\w-]+)\s*([<>]=?|==?)\s*([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)\s*(?:@\s*(\S+))?\s*"
)


@dataclass(frozen=True)
class Measured:
    """A metric, at a workload where it is one of calls."""

    metric: str
    workload: str | None = None

    @property
    def key(self) -> str:
        """As in a trial's values."""
        return self.metric if self.workload is None else f"{self.metric}@{self.workload}"

    @property
    def better(self) -> int:
        """-1 where less is better, else 1."""
        return -1 if METRICS[self.metric].bound == "<=" else 1


@dataclass(frozen=True)
class Limit:
    """What a bundle has to keep. most: in the metric's first unit; the least where more is better."""

    of: Measured
    most: float

    def excess(self, values: Values) -> float:
        """How far values are beyond the limit, as a share of it; at most 0 where they keep it."""
        over = (self.most - values[self.of.key]) * self.of.better
        return over / (abs(self.most) or 1.0)

    def __str__(self) -> str:
        metric = METRICS[self.of.metric]
        where = f"@{self.of.workload}" if self.of.workload else ""
        return f"{self.of.metric}{metric.bound}{self.most!r}{next(iter(metric.units))}{where}"


@dataclass(frozen=True)
class Goal:
    """limits: all of them are to be kept. minimise: what the front is about; what is better large counts
    with its sign turned."""

    limits: tuple[Limit, ...]
    minimise: tuple[Measured, ...]

    def objectives(self, values: Values) -> tuple[float, ...]:
        """What is to become small."""
        return tuple(-one.better * values[one.key] for one in self.minimise)

    def excesses(self, values: Values) -> dict[str, float]:
        """Of each limit, by its metric's key: at most 0 where it is kept."""
        return {limit.of.key: limit.excess(values) for limit in self.limits}

    def distance(self, values: Values) -> float:
        """The sum of what values are beyond their limits, as shares of these; 0 where they keep them all."""
        return sum(max(0.0, excess) for excess in self.excesses(values).values())

    def at(self, workloads: Sequence[str]) -> Goal:
        """With the workload of what names none: every one that the goal limits it at, or else the first.

        Raises:
            ConfigError: two limits are then for one metric.
        """
        limits = tuple(replace(one, of=_at(one.of, workloads[0])) for one in self.limits)
        _once((limit.of for limit in limits), "goal")
        wanted: list[Measured] = []
        for one in self.minimise:
            limited = [limit.of for limit in limits if limit.of.metric == one.metric]
            wanted += limited if one.workload is None and limited else [_at(one, workloads[0])]
        return Goal(limits, tuple(dict.fromkeys(wanted)))

    @property
    def workloads(self) -> tuple[str, ...]:
        """Those that are named."""
        named = [limit.of.workload for limit in self.limits] + [one.workload for one in self.minimise]
        return tuple(dict.fromkeys(name for name in named if name))

    def __str__(self) -> str:
        return ", ".join(map(str, self.limits))

    def to_json(self) -> dict[str, Any]:
        limits = [
            {
                "metric": limit.of.metric,
                "workload": limit.of.workload,
                "bound": METRICS[limit.of.metric].bound,
                "limit": limit.most,
                "unit": next(iter(METRICS[limit.of.metric].units)),
            }
            for limit in self.limits
        ]
        return {"text": str(self), "limits": limits, "minimise": [one.key for one in self.minimise]}


def goal(text: str, minimise: str | None = None) -> Goal:
    """A goal as it is written.

    Args:
        text: limits; may be empty where something is minimised.
        minimise: None minimises what the goal limits.

    Raises:
        ConfigError: it can't be read, names no metric that is known, asks for what no bundle can be, or for
            two things that exclude each other.
    """
    limits = tuple(_limit(part) for part in text.split(",")) if text.strip() else ()
    _once([limit.of for limit in limits], "goal")
    if minimise is None:
        wanted = [limit.of for limit in limits if limit.of.better < 0]
    else:
        wanted = [_wanted(part) for part in minimise.split(",")]
    if not wanted:
        raise ConfigError("nothing is to become small: name it, as in --minimise latency,size")
    return Goal(limits, _once(wanted, "minimise"))


def _limit(part: str) -> Limit:
    found = _LIMIT.fullmatch(part)
    if found is None:
        raise ConfigError(
            f"goal: {short(part.strip())} is no limit: write one as latency<=5ms@1x128 or size<=20MB"
        )
    name, bound, number, unit, workload = found.groups()
    metric = _metric(name, "goal")
    if bound != metric.bound:
        side = "the smaller it is" if metric.bound == "<=" else "the larger it is"
        raise ConfigError(f"goal: {name} is better {side}, so limit it by {name}{metric.bound}{number}{unit}")
    first = next(iter(metric.units))
    unit = next((known for known in metric.units if known.lower() == unit.lower()), unit)
    if unit and unit not in metric.units:
        raise ConfigError(f"goal: {name} is no number of {short(unit)}{did_you_mean(unit, metric.units)}")
    try:
        most = float(number) * metric.units[unit or first]
    except ValueError:
        raise ConfigError(f"goal: {short(number)} is no number") from None
    if most <= metric.least or not math.isfinite(most):
        raise ConfigError(f"goal: {name}{bound}{number}{unit} contradicts itself: no model has such a {name}")
    return Limit(_measured(name, workload, "goal"), most)


def _wanted(part: str) -> Measured:
    name, _, workload = part.strip().partition("@")
    metric = _metric(name.strip(), "minimise")
    if metric.bound == ">=":
        raise ConfigError(
            f"minimise: {name.strip()} is better the larger it is: limit it, or minimise latency"
        )
    return _measured(name.strip(), workload.strip() or None, "minimise")


def _metric(name: str, where: str) -> Metric:
    if name not in METRICS:
        raise ConfigError(f"{where}: there is no metric {short(name)}{did_you_mean(name, METRICS)}")
    return METRICS[name]


def _measured(name: str, workload: str | None, where: str) -> Measured:
    if workload is None:
        return Measured(name)
    if not METRICS[name].of_call:
        raise ConfigError(f"{where}: {name} is the same for every call, so leave out @{workload}")
    try:
        (one,) = names_in(workload)
    except MeasureError as error:
        raise ConfigError(f"{where}: {error}") from error
    return Measured(name, one)


def _at(one: Measured, workload: str) -> Measured:
    return replace(one, workload=workload) if METRICS[one.metric].of_call and not one.workload else one


def _once(every: Iterable[Measured], where: str) -> tuple[Measured, ...]:
    """Raises ConfigError where one stands twice."""
    seen: list[Measured] = []
    for one in every:
        if one in seen:
            raise ConfigError(f"{where} contradicts itself: {one.key} stands in it twice; keep one")
        seen.append(one)
    return tuple(seen)
