"""What is said about feed-forwards that were split into experts."""

from __future__ import annotations

from collections.abc import Sequence

from ...share.groups.sites import Site
from .plans import Plan

Split = tuple[Site, Plan, int]  # and how many experts a token is given to


def statistics(done: Sequence[Split], found: int) -> dict[str, int | float | str]:
    """By layer where texts were seen: the energy kept, and how tokens fall on experts."""
    if not done:
        return {}
    experts = len(done[0][1].order)
    result: dict[str, int | float | str] = {
        "feed-forwards split": f"{len(done)} of {found}",
        "experts for each token": f"{_range([top for *_, top in done])} of {experts}",
        "multiply-adds a token before": sum(_whole(site) * len(site.uses) for site, *_ in done),
        "multiply-adds a token": sum(_chosen(site, plan, top) * len(site.uses) for site, plan, top in done),
    }
    if done[0][1].kept is not None:
        loads = [plan.loads[top - 1] for _, plan, top in done if plan.loads is not None]
        kept = [plan.kept[top - 1] for _, plan, top in done if plan.kept is not None]
        result |= {
            "energy kept by layer": " ".join(f"{one:.3f}" for one in kept),
            "largest load over mean by layer": " ".join(f"{load.max() / load.mean():.2f}" for load in loads),
            "tokens that an expert sees": f"{min(map(min, loads)):.1%} to {max(map(max, loads)):.1%}",
        }
    return result


def notes_on(done: Sequence[Split], little: float) -> list[str]:
    """What a person should know before using it."""
    if not done:
        return []
    if done[0][1].kept is None:
        return ["no texts were given: weights alone say what is an expert, and nobody knows what is kept"]
    poor = [(site.name, float(plan.kept[top - 1])) for site, plan, top in done if plan.kept is not None]
    poor = [(name, kept) for name, kept in poor if kept < little]
    if not poor:
        return []
    name, kept = min(poor, key=lambda one: one[1])
    return [
        f"{len(poor)} of {len(done)} feed-forwards keep less than {little:g} of their energy, {name} the "
        f"least ({kept:.2f}): give more experts to each token, replace the activation by ReLU and distill "
        "first, or distill afterwards"
    ]


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _whole(site: Site) -> int:
    return sum(matrix.columns * (stop - start) for matrix, pieces in site.products for start, stop in pieces)


def _chosen(site: Site, plan: Plan, top: int) -> int:
    experts = len(plan.order)
    return _whole(site) * top // experts + experts * site.products[0][0].columns
