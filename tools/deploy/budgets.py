"""What a build has to reach: `speedup: ">=2"`, `p95@8x128: "<=40ms"`, read and judged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...backends.measuring.workloads import check_name
from ...ir.errors import ConfigError, MeasureError, did_you_mean, short
from .facts import Facts

_UNITS: Mapping[str, Mapping[str, float]] = {  # of a quantity: what one of each is, in the unit of `Facts`
    "speedup": {"": 1, "x": 1, "times": 1},
    "drop": {"": 1, "points": 1, "point": 1},
    "size": {"KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "B": 1},
    "p50": {"ms": 1, "us": 1e-3, "µs": 1e-3, "s": 1e3},
    "p95": {"ms": 1, "us": 1e-3, "µs": 1e-3, "s": 1e3},
}
_SHOWN = {"speedup": "", "drop": " points", "size": " bytes", "p50": " ms", "p95": " ms"}
_TIMED = ("speedup", "p50", "p95")
_LIMIT = re.compile(
    r"(?P<sign>>=|<=)\s*(?P<number>\d+(\.\d+)?|\.\d+)\s*(?P<unit>[A-Za-zµ]*)", re.ASCII | re.I
)
PATTERN = r"^(speedup|drop|size|p50|p95)(@.+)?$"
"""Of a key, for editors; `read` says what is wrong with one."""


@dataclass(frozen=True)
class Budget:
    """A limit on what was measured.

    quantity: speedup (over what one would otherwise run), drop (points of the metric), size (bytes of what
    runs), p50 or p95 (ms of a call). workload: the one it is for; None: all. least: whether `limit` is the
    least allowed, or the most; in bytes, points or ms. text: as it was written.
    """

    quantity: str
    workload: str | None
    least: bool
    limit: float
    text: str

    def unmet(self, facts: Facts) -> str:
        """Why a build doesn't keep it, in a sentence; "" where it does.

        What could not be measured is not kept: nobody knows.
        """
        found = self._found(facts)
        missing = [work for work, value in found.items() if value is None]
        if not found or missing:
            at = f" at {missing[0]}" if missing and missing[0] else ""
            return f"{self.text} can't be judged: {self.quantity} was not measured{at}"
        work, worst = (min if self.least else max)(found.items(), key=lambda pair: pair[1] or 0.0)
        assert worst is not None
        if worst >= self.limit if self.least else worst <= self.limit:
            return ""
        at = f" at {work}" if work else ""
        return f"{self.text} is not met: it is {worst:.4g}{_SHOWN[self.quantity]}{at}"

    def _found(self, facts: Facts) -> dict[str, float | None]:
        """By workload, or by "" for what has none."""
        if self.quantity == "drop":
            return {"": facts.drop}
        if self.quantity == "size":
            return {"": float(facts.size)}
        chosen = [self.workload] if self.workload else list(facts.calls)
        calls = {work: facts.calls.get(work) for work in chosen}
        value = {"speedup": "speedup", "p50": "ms", "p95": "p95_ms"}[self.quantity]
        return {work: None if call is None else getattr(call, value) for work, call in calls.items()}


def read(key: str, limit: str) -> Budget:
    """A budget as the file has it.

    Raises:
        ConfigError: it can't be read; with an example of what can.
    """
    quantity, at, workload = key.partition("@")
    if quantity not in _UNITS:
        raise ConfigError(f"require: unknown budget {short(key)}{did_you_mean(quantity, _UNITS)}")
    if at and quantity not in _TIMED:
        raise ConfigError(
            f"require: {quantity} is one of a whole build; write {quantity}, without {at}{workload}"
        )
    if at:
        try:
            check_name(workload)
        except MeasureError as error:
            raise ConfigError(f"require: {short(key)}: {error}") from error
    found = _LIMIT.fullmatch(str(limit).strip())
    units = _UNITS[quantity]
    examples = {"speedup": ">=2", "drop": "<=0.5", "size": "<=30MB"}
    if found is None:
        raise ConfigError(
            f"require: {key}: {short(limit)} is no limit; write >= or <= and a number, as in "
            f'"{examples.get(quantity, "<=40ms")}"'
        )
    if found["unit"] not in units:
        known = ", ".join(unit for unit in units if unit)
        raise ConfigError(
            f"require: {key}: {short(limit)} has no unit that {quantity} is counted in: {known}"
        )
    value = float(found["number"]) * units[found["unit"]]
    return Budget(quantity, workload or None, found["sign"] == ">=", value, f"{key} {found[0]}")
