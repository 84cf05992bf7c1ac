"""Layers that take one precision together, and a program with a precision for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import networkx as nx

from ....ir.program import Program
from ..codes import stored
from ..codes.nbit_form import nbit_form
from ..codes.repack import repack
from ..codes.rounding import Scheme
from ..fit.coding import without_data
from ..int8.rewrite import Rung, write
from ..int8.sites import find

Precision = Literal["float", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SCHEME = Scheme(bits=4, group=32)  # of "int4"


@dataclass(frozen=True)
class Unit:
    """Products that share an activation (q, k and v) or a weight (repeated layers).

    sites: names of theirs (sites.Site). weights: names. precisions: what they may be stored and computed in:
    int8 products with activations quantized at run time; 4-bit weights, decoded by the kernel; float.
    """

    sites: tuple[str, ...]
    weights: tuple[str, ...]
    precisions: tuple[Precision, ...]

    @property
    def name(self) -> str:
        return self.sites[0]


def units(program: Program, limit: int) -> tuple[list[Unit], list[str]]:
    """A program's units in order, and a sentence for each product that stays in float.

    Args:
        limit: of int8 weights (weights.limit_for).
    """
    sites, misses = find(program, limit)
    sharing = nx.Graph()
    for site in sites:
        for product in site.products:
            sharing.add_edge(("site", site.name), ("weight", str(product.weight.name)))
    packable = {each.name for each in stored.find(program)[0] if not each.table and each.groups == 1}
    whole = {site.name for site in sites if not site.per_token}
    order = {site.name: number for number, site in enumerate(sites)}
    found = []
    for component in nx.connected_components(sharing):
        names = sorted((name for kind, name in component if kind == "site"), key=order.__getitem__)
        weights = sorted(name for kind, name in component if kind == "weight")
        unfit = {"int8": not whole.isdisjoint(names), "int4": not packable.issuperset(weights)}
        precisions = tuple(precision for precision in PRECISIONS if not unfit.get(precision))
        found.append(Unit(tuple(names), tuple(weights), precisions))
    return sorted(found, key=lambda unit: order[unit.name]), misses


def assign(
    program: Program,
    chosen: Sequence[Unit],
    precisions: Sequence[Precision],
    limit: int,
    sources: frozenset[str],
) -> None:
    """Give each unit its precision, in place.

    Args:
        chosen: all that `units` gives, a precision for each.
        sources: values that may hold rows of NaN (hidden_rows.nan_sources).
    """
    wanted: Mapping[str, Precision] = {
        name: precision for unit, precision in zip(chosen, precisions, strict=True) for name in unit.sites
    }
    narrow = {w for unit, p in zip(chosen, precisions, strict=True) if p == "int4" for w in unit.weights}
    packed = [each for each in stored.find(program)[0] if each.name in narrow]
    repack(
        program.graph,
        [(each, nbit_form(each, without_data(each, "rtn", SCHEME), "int8")) for each in packed],
    )
    sites = find(program, limit)[0]  # those packed are no longer among them
    rungs: list[Rung] = ["token" if wanted.get(site.name) == "int8" else "float" for site in sites]
    if "token" in rungs:
        write(program, sites, rungs, limit, sources)
