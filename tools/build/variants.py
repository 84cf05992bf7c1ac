"""Which gated passes serve which workload, and which graph runs it: one bundle may hold several."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import count

from ...passes.manager.contract import Ratio, Step
from ...passes.manager.pipeline import GAIN, LOSS

DEFAULT = "main"


def decisions(
    steps: Sequence[Step],
    workloads: Sequence[str],
    pays: Callable[[int, str], bool] = lambda step, work: True,
    exact: Sequence[bool] | None = None,
) -> dict[frozenset[int], list[str]]:
    """Steps to leave out -> the workloads that are better without them.

    A step is left out of a workload that it measured slower at beyond noise, or that cannot gain from it. The
    empty set, the pipeline as it ran, comes first and may serve no workload.

    Args:
        pays: (number of a step, workload) -> whether the one can gain from the other.
        exact: which steps keep the outputs as they are, and may be left out; None: all.
    """
    groups: dict[frozenset[int], list[str]] = {frozenset(): []}
    for workload in workloads:
        left_out = frozenset(
            number
            for number, step in enumerate(steps)
            if step.status == "applied"
            and (exact is None or exact[number])
            and (
                not pays(number, workload) or (workload in step.ratios and step.ratios[workload].high < LOSS)
            )
        )
        groups.setdefault(left_out, []).append(workload)
    return groups


def choose(
    workloads: Sequence[str],
    names: Sequence[str],
    faster: Callable[[str, str, str], Ratio],
    made_for: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Workload -> the graph that runs it.

    Args:
        workloads: in order.
        names: the graphs; the first is the default.
        faster: (workload, a, b) -> how much faster a is than b.
        made_for: workload -> the graph that was made for it, where that is not the default.

    Returns:
        For each workload the graph made for it, unless another is faster beyond noise; among several such
        the fastest, except that one already chosen elsewhere is preferred to a new one within noise. Among
        the graphs chosen for any workload, which the bundle holds anyway, the fastest by the median.
    """
    chosen: dict[str, str] = {}
    used = {names[0], *(made_for or {}).values()}
    for workload in workloads:
        best = (made_for or {}).get(workload, names[0])
        for name in sorted(names, key=lambda name: name not in used):
            if name != best and faster(workload, name, best).low > GAIN:
                best = name
        chosen[workload] = best
        used.add(best)
    held = [name for name in names if name in chosen.values()]
    for workload in workloads:
        for name in held:
            if name != chosen[workload] and faster(workload, name, chosen[workload]).median > 1:
                chosen[workload] = name
    return chosen


def title(served: Sequence[str], taken: Container[str]) -> str:
    """A graph's name, from the workloads that it was made for: "for-1x128", "for-1x128-and-2-more"."""
    more = f"-and-{len(served) - 1}-more" if len(served) > 1 else ""
    name = "for-" + "".join(c if c.isalnum() else "-" for c in served[0]) + more
    return name if name not in taken else f"{name}-{next(n for n in count(2) if f'{name}-{n}' not in taken)}"
