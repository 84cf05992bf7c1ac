"""Weights that one layer alone reads, so that a pass may change them for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ...ir.values import Value, View


def readers(graph: View) -> dict[int, int]:
    """How many values read each tensor, by its id: one that stands under several paths is counted once."""
    found: dict[int, int] = {}
    for value in graph.values:
        if value.op == "const" and value.tensor is not None:
            found[id(value.tensor)] = found.get(id(value.tensor), 0) + len(value.users)
    return found


def shared(values: Iterable[Value | None], read: Mapping[int, int]) -> str:
    """Why the first of some weights cannot be changed for one reader; empty where all can."""
    for value in filter(None, values):
        if value.op != "const" or value.tensor is None or "float" not in str(value.dtype):
            return f"{value.name} is computed"
        if read[id(value.tensor)] > 1:
            return f"{value.name} serves other layers too"
    return ""
