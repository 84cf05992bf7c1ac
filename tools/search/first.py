"""The points that a search begins with: nothing, each rounding, structures foretold to be good, each pass."""

from __future__ import annotations

from collections.abc import Sequence

from ...passes.manager.varying import Range, Value
from .slots import FX, NONE, SLOTS
from .space import Choices, Space
from .structures import PASS


def first(space: Space, structures: Sequence[tuple[int, ...]]) -> list[Choices]:
    """In order: the exact passes, each of the last slot's, each structure, each other pass; these two with
    recovery behind them and the first pass that rounds, where they are to be had. A search that is short
    ends behind what promises most.

    structures: what each block keeps.
    """
    plain = {
        name: NONE if name in SLOTS and NONE in space.values(name) else _middle(one)
        for name, one in space.dimensions.items()
    }
    usual = {**plain, **_first_of(space, "recovery"), **_first_of(space, "bits")}
    made = [plain]
    made += [{**plain, "bits": name} for name in space.values("bits")]
    for kept in structures:
        keep = {f"{PASS}.keep.{number}": count for number, count in enumerate(kept)}
        if PASS in space.values("structure") and _within(space, keep):
            made.append({**usual, "structure": PASS, **keep})
    for slot in FX:
        for name in space.values(slot):
            if slot != "recovery" and name not in (NONE, PASS):
                made.append({**usual, slot: name})
    return list({tuple(space.used(one).items()): one for one in made}.values())


def _first_of(space: Space, slot: str) -> dict[str, Value]:
    """The first pass of a slot."""
    passes = [name for name in space.values(slot) if name != NONE]
    return {slot: passes[0]} if passes else {}


def _middle(one: Range) -> Value:
    if isinstance(one, tuple):
        return one[len(one) // 2] if not isinstance(one[0], str) else one[0]
    if one.rising:
        return one.low
    if one.log:
        middle = (float(one.low) * float(one.high)) ** 0.5
    else:
        middle = (one.low + one.high) / 2
    if one.step:
        middle = one.low + round((middle - one.low) / one.step) * one.step
    return round(middle) if one.whole else middle


def _within(space: Space, keep: Choices) -> bool:
    return all(name in space.dimensions and count in space.values(name) for name, count in keep.items())
