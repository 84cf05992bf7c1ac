"""What a manifest says of time: a row for each contestant at each workload."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ....backends.measuring.ratios import speedup
from ...build.steps import BUNDLE, PLAIN, PYTORCH


@dataclass(frozen=True)
class Timing:
    """A contestant at a workload.

    name: "bundle" for whichever graph of it serves the workload. ms, low, high: the median of the rounds'
    medians and their quartiles, in milliseconds. times: how many times as fast as `than`, with the ends of
    its 95% interval; None for `than` itself. joules: of a call, None where the machine doesn't tell.
    """

    workload: str
    name: str
    ms: float
    low: float
    high: float
    than: str
    times: float | None = None
    interval: tuple[float, float] | None = None
    joules: float | None = None


def timings(record: Mapping[str, Any]) -> list[Timing]:
    """Of what a user would otherwise run, of a build that was not kept, and of the bundle; workload by
    workload. Empty where nothing was timed.

    Everything is compared with ONNX Runtime on the un-rewritten export, from the rounds of each. Manifests
    without rounds tell of ratios over their first contestant alone.
    """
    contestants = record.get("measurements", {}).get("contestants", {})
    served = dispatch(record)
    if not contestants or not set(served.values()) <= contestants.keys():
        return []
    usual = [name for name in (PYTORCH, PLAIN) if name in contestants]
    other = record.get("other") or {}
    found = []
    for workload, graph in served.items():
        names = {name: name for name in usual}
        if other.get("dispatch", {}).get(workload) in contestants:
            names[f"{other['backend']} build"] = other["dispatch"][workload]
        names[BUNDLE] = graph
        cells = {shown: contestants[name]["workloads"][workload] for shown, name in names.items()}
        rounds = all(cell.get("rounds_ms") for cell in cells.values())
        than = usual[-1] if rounds and usual else next(iter(cells))
        found += [_timing(workload, name, cell, cells[than], than) for name, cell in cells.items()]
    return found


def dispatch(record: Mapping[str, Any]) -> dict[str, str]:
    """Workload -> the graph that serves it, as a run or a manifest says it. A manifest of compiled functions
    has no table: there is one build, whatever the workload."""
    rows = record.get("dispatch") or {}
    if rows:
        return dict(rows) if isinstance(rows, Mapping) else {row["workload"]: row["graph"] for row in rows}
    contestants = record.get("measurements", {}).get("contestants", {})
    other = (record.get("other") or {}).get("dispatch", {})
    own = [name for name in contestants if name not in (PYTORCH, PLAIN, *other.values())]
    return dict.fromkeys(contestants[own[0]]["workloads"], own[0]) if own else {}


def _timing(workload: str, name: str, cell: Mapping[str, Any], base: Mapping[str, Any], than: str) -> Timing:
    low, high = cell["ms_quartiles"]
    shown = Timing(workload, name, cell["ms"], low, high, than, joules=cell.get("joules"))
    if name == than:
        return shown
    times, (start, end) = cell["speedup"], cell["interval95"]
    if base.get("rounds_ms") and cell.get("rounds_ms"):
        disturbed = [a or b for a, b in zip(base["disturbed"], cell["disturbed"], strict=True)]
        ratio = speedup(base["rounds_ms"], cell["rounds_ms"], disturbed)
        times, (start, end) = ratio.median, ratio.interval
    return Timing(workload, name, shown.ms, low, high, than, times, (start, end), shown.joules)
