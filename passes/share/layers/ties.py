"""Which parameters of layers become one: like with like, or the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from torch.fx import GraphModule

from ....ir.errors import PassError
from ....ir.fx.graph import attribute
from .parts import Kind, Layer, Part

What = Literal["all", "attention", "ffn"]
_BLOCKS = {
    "all": ("attention", "cross-attention", "feed-forward"),
    "attention": ("attention", "cross-attention"),
    "ffn": ("feed-forward",),
}


@dataclass(frozen=True)
class Tie:
    """Parameters that become one, by layer; equal names are one parameter already."""

    paths: tuple[str, ...]
    of: Kind

    @property
    def path(self) -> str:
        """The one that stays."""
        return self.paths[0]


def sets(count: int, groups: int, repeats: int) -> list[list[int]]:
    """Numbers of layers that share their weights, by set: the layers fall into `repeats` equal runs, and each
    run into `groups` chunks; the first chunks of all runs share, the second ones, and so on.

    Raises:
        PassError: so many layers don't divide so.
    """
    if count % repeats:
        raise PassError(f"{count} layers don't fall into {repeats} equal runs: give repeats that divide them")
    length = count // repeats
    if groups > length:
        runs = f" in each of {repeats} runs" if repeats > 1 else ""
        raise PassError(f"groups is {groups}, and there are {length} layers{runs}: give fewer groups")
    found: list[list[int]] = [[] for _ in range(groups)]
    for number in range(count):
        found[number % length * groups // length].append(number)
    return found


def ties(
    gm: GraphModule, layers: Sequence[Layer], numbers: Sequence[int], what: What
) -> tuple[list[Tie], list[str]]:
    """For layers of one set, what becomes one, and a sentence for each norm that not all of them have.

    Args:
        layers: of the whole stream. numbers: of those in the set.

    Raises:
        PassError: two layers differ in their blocks or in the sizes of their weights; names both.
    """
    chosen = {number: _chosen(layers[number], what) for number in numbers}
    like = max(numbers, key=lambda number: (len(chosen[number]), -number))
    for number in numbers:
        _same_blocks(layers, like, number, what)
    columns: list[list[str]] = [[] for _ in chosen[like]]
    notes = []
    for number in numbers:
        found, alone = _matched(chosen[like], chosen[number])
        if why := _unfit(gm, chosen[like], chosen[number], found, alone, (like, number)):
            raise PassError(why)
        for place, part in found.items():
            columns[place].append(part.path)
        missing = [part.path for place, part in enumerate(chosen[like]) if place not in found]
        notes += [f"layer {number} has nothing like {path} of layer {like}" for path in missing]
        notes += [f"{part.path} stays: layer {like} has nothing like it" for part in alone]
    return [Tie(tuple(c), p.of) for c, p in zip(columns, chosen[like], strict=True) if len(c) > 1], notes


def _chosen(layer: Layer, what: What) -> list[Part]:
    return [part for part in layer.parts if what in ("all", part.of)]


def _same_blocks(layers: Sequence[Layer], one: int, other: int, what: What) -> None:
    first, second = sorted((one, other))
    has, other_has = (
        _said([block for block in layers[number].blocks if block[0] in _BLOCKS[what]])
        for number in (first, second)
    )
    if has != other_has:
        raise PassError(
            f"layers {first} and {second} cannot share their weights: layer {first} has {has}, and layer "
            f"{second} has {other_has}: tie fewer of them (groups, what)"
        )


def _said(blocks: Sequence[tuple[str, ...]]) -> str:
    return " and ".join(" of ".join(block) for block in blocks) or "none"


def _matched(like: Sequence[Part], parts: Sequence[Part]) -> tuple[dict[int, Part], list[Part]]:
    """By place in `like`, what stands there; and what stands nowhere."""
    matcher = SequenceMatcher(a=[p.key for p in like], b=[p.key for p in parts], autojunk=False)
    found = {
        block.a + i: parts[block.b + i] for block in matcher.get_matching_blocks() for i in range(block.size)
    }
    there = {id(part) for part in found.values()}
    return found, [part for part in parts if id(part) not in there]


def _unfit(
    gm: GraphModule,
    like: Sequence[Part],
    parts: Sequence[Part],
    found: dict[int, Part],
    alone: Sequence[Part],
    numbers: tuple[int, int],
) -> str:
    one, other = numbers
    for place, part in found.items():
        if attribute(gm, part.path).shape != attribute(gm, like[place].path).shape:
            return (
                f"layers {one} and {other} cannot share their weights: {_sized(gm, like[place])} and "
                f"{_sized(gm, part)} differ in size: tie fewer of them (groups, what)"
            )
    missing = [part for place, part in enumerate(like) if place not in found and part.of != "norm"]
    more = [part for part in alone if part.of != "norm"]
    for number, lacking, has in ((one, other, missing), (other, one, more)):
        if has:
            return (
                f"layers {one} and {other} cannot share their weights: layer {number} has "
                f"{_sized(gm, has[0])} and layer {lacking} has nothing like it: tie fewer of them "
                "(groups, what)"
            )
    return ""


def _sized(gm: GraphModule, part: Part) -> str:
    return f"{part.path} ({'x'.join(map(str, attribute(gm, part.path).shape))})"
