"""What was measured of a build, as budgets, changes and the lock take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...backends.bundles.manifest import MANIFEST, PAGE, REPORT


@dataclass(frozen=True)
class Call:
    """One workload. ms: the median of a call; ms_quartiles: of the rounds. p95_ms: None where unknown.
    speedup, interval: over the first contestant, with 95% of its bootstrapped medians; None where the build
    was timed alone."""

    ms: float
    ms_quartiles: tuple[float, float]
    p95_ms: float | None = None
    speedup: float | None = None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Facts:
    """calls: by workload, those that were timed. size: bytes of what runs: graphs, weights, tokenizer. drop:
    points lost, None where nothing was judged. metric: what was judged. against: what speed-ups are over.
    where: what was timed."""

    size: int
    drop: float | None = None
    metric: str = ""
    against: str = ""
    where: str = ""
    calls: Mapping[str, Call] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Facts:
        """Raises what Python does (files.FAULTS) for anything that `to_json` would not have written."""
        calls = {str(work): _call(each) for work, each in record["calls"].items()}
        drop = None if record["drop"] is None else float(record["drop"])
        metric, against, where = (str(record[name]) for name in ("metric", "against", "where"))
        return Facts(int(record["size"]), drop, metric, against, where, calls)


def size_of(bundle: Path) -> int:
    """Bytes of what answers; people read the rest."""
    read = {MANIFEST, REPORT, PAGE}
    return sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file() and path.name not in read)


def of_run(found: Mapping[str, Any], target: Mapping[str, Any], size: int) -> Facts:
    """What a run found. found: an Outcome as JSON. size: of the bundle's files."""
    quality = found["quality"]
    drop, metric = (quality["drop"], quality["score"]["metric"]) if quality else (None, "")
    contestants = found["measurements"]["contestants"]
    calls = {
        work: _call(contestants[graph]["workloads"][work])
        for work, graph in found["dispatch"].items()
        if graph in contestants
    }
    where = str(target["model"] or target["arch"])
    return Facts(size, drop, metric, next(iter(contestants)), where, calls)


def of_calls(record: Mapping[str, Any]) -> dict[str, Call]:
    """A contestant timed alone, at each workload."""
    return {
        work: _call({"ms": each["ms"], "ms_quartiles": each["ms_quartiles"], "p95_ms": each.get("p95_ms")})
        for work, each in record.items()
    }


def _call(record: Mapping[str, Any]) -> Call:
    p95, times = record.get("p95_ms"), record.get("speedup")
    interval = record.get("interval95", record.get("interval"))
    return Call(
        float(record["ms"]),
        _pair(record["ms_quartiles"]),
        None if p95 is None else float(p95),
        None if times is None else float(times),
        None if interval is None else _pair(interval),
    )


def _pair(values: Any) -> tuple[float, float]:
    low, high = map(float, values)
    return low, high
