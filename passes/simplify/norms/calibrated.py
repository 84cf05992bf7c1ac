"""Affine maps for norms, one after the other, each for what the maps before it really give.

The program runs twice over the same feeds in step: as it is, and with the maps found so far in the place of
their norms. So a map sees the error of those before it and makes up for what it can, as `refit` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import torch
from torch.fx import Node

from ....ir.blocks.base import Norm
from ....ir.errors import DataError
from ....ir.inputs.masks import real_tokens
from ....ir.program import Program
from ...common.lockstep import Lockstep
from ...manager.contract import Context, Feed
from .moments import Distance, Moments


@dataclass(frozen=True)
class Fitted:
    """What was found for a norm. gamma, beta: (features,), float64. error, scale, largest: on rows held out
    (moments.Distance), NaN where there are none. reason: why the norm stays, empty where the map goes in."""

    norm: Norm
    gamma: torch.Tensor
    beta: torch.Tensor
    error: float = nan
    scale: float = nan
    largest: float = nan
    reason: str = ""


def fitted(
    program: Program,
    norms: Sequence[Norm],
    given: Sequence[tuple[torch.Tensor, torch.Tensor] | None],
    feeds: tuple[Sequence[Feed], Sequence[Feed]],
    limit: float,
    context: Context,
) -> list[Fitted]:
    """A map for each norm, in graph order.

    Args:
        program: fx, in evaluation mode; it is not changed.
        norms: of the program, in graph order.
        given: (gamma, beta) that are not to be fitted, or None, for each norm.
        feeds: (to fit on, to judge on). Without the second, the first serve for both.
        limit: a map whose results are so many times larger or smaller than its norm's, over all rows or in
            the largest one, does not take its place.

    Raises:
        DataError: a norm reads no finite row; named.
    """
    data = [*feeds[0], *feeds[1]]
    judged = range(len(feeds[0]), len(data)) if feeds[1] else range(len(data))
    ends = [node for norm in norms for node in (norm.input.native, norm.root.native)]
    mine, theirs = Lockstep(program, data, ends), Lockstep(program, data, ends)
    found = []
    for number, (norm, known) in enumerate(zip(norms, given, strict=True)):
        context.progress("fitting affine maps", number, len(norms))
        source, root = norm.input.native, norm.root.native
        mine.reached(root)
        theirs.reached(root)
        gamma, beta = known or _fit(program, feeds[0], norm, mine, theirs)
        distance = Distance()
        mapped = []
        for place in range(len(data)):
            x = mine.value(source, place)
            mapped.append((x.double() * gamma + beta).to(mine.value(root, place).dtype))
            if place in judged:
                target = theirs.value(root, place)
                pair = [rows(program, data[place], norm, each) for each in (mapped[-1], target)]
                distance.add(*pair)
        reason = _diverged(distance, limit)
        found.append(Fitted(norm, gamma, beta, distance.error, distance.scale, distance.largest, reason))
        if not reason:
            for place, value in enumerate(mapped):
                mine.put(root, place, value)
        for run in (mine, theirs):
            run.let_go(source, root)
    return found


def rows(program: Program, feed: Feed, norm: Norm, value: torch.Tensor) -> torch.Tensor:
    """(rows, features) of a norm's input or result at the places that some mask keeps.

    The mask's axes are found by their names, wherever they stand: behind the heads too, or flattened.
    """
    shape = list(norm.root.shape or ())
    for spec in program.inputs:
        mask = real_tokens([spec], feed).get(spec.name)
        if mask is None:
            continue
        if all(dim in shape[:-1] for dim in spec.shape):
            axes = [shape.index(dim) for dim in spec.shape]
            if tuple(value.shape[axis] for axis in axes) == mask.shape:
                value = value.movedim(axes, list(range(len(axes))))
                return value[torch.from_numpy(mask)].reshape(-1, value.shape[-1])
        if value.dim() == 2 and mask.size == len(value):
            return value[torch.from_numpy(mask.reshape(-1))]
    return value.reshape(-1, value.shape[-1])


def _fit(
    program: Program, feeds: Sequence[Feed], norm: Norm, mine: Lockstep, theirs: Lockstep
) -> tuple[torch.Tensor, torch.Tensor]:
    source: Node = norm.input.native
    moments = Moments()
    for place, feed in enumerate(feeds):
        x, target = mine.value(source, place), theirs.value(norm.root.native, place)
        moments.add(rows(program, feed, norm, x), rows(program, feed, norm, target))
    if not moments.count:
        raise DataError(
            f"the calibration data leaves '{norm.root.name}' without one finite row: check the model's "
            "weights and the attention masks"
        )
    return moments.affine()


def _diverged(distance: Distance, limit: float) -> str:
    """Why a map cannot stand for its norm, with the number; empty where it can."""
    for what, ratio in (("its results", distance.scale), ("its largest row", distance.largest)):
        if not isfinite(ratio) or not 1 / limit <= ratio <= limit:
            return f"without it {what} would be {ratio:.3g} times as large (limit {limit:g})"
    return ""
