"""Which masks of scores say no more than which keys are padding, found by computing them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.fx import Node

from ....ir.blocks.mask import HIDDEN
from ....ir.inputs.probe import feed
from ....ir.program import Program
from ....ir.spec import InputSpec
from ...common.outputs import computed

_LENGTH = 9


def only_padding(
    program: Program, mask: InputSpec | None, terms: Mapping[Node, bool]
) -> tuple[set[Node], set[Node]]:
    """Of masks and biases of scores, those that hide just the keys of padding, from all queries alike, and
    those that hide nothing where nothing is padded (no mask).

    Args:
        mask: the input that says what is padding. terms: with whether a bool one is true where it keeps.
    """
    if not terms:
        return set(), set()
    sizes = {symbol: min(max(_LENGTH, low), high) for symbol, (low, high) in program.symbols.items()}
    left = set(terms)
    for pattern in ("ragged", "left", "ones"):
        arrays = feed(program, sizes, pattern)
        kept = torch.from_numpy(mask.kept(arrays[mask.name])) if mask is not None else torch.ones(1, 1) > 0
        for node, value in zip(left, computed(program, left, arrays), strict=True):
            if not _same(value, kept, terms[node]):
                left = left - {node}
    return (left, set()) if mask is not None else (set(), left)


def _same(value: torch.Tensor, kept: torch.Tensor, keeps: bool) -> bool:
    if value.dim() != 4:
        return False
    shown = value == keeps if value.dtype == torch.bool else value > HIDDEN
    if value.is_floating_point() and bool(value[shown].abs().max() > 0 if shown.any() else False):
        return False
    if kept.numel() == 1:
        return bool(shown.all())
    try:
        shown = shown.broadcast_to((len(kept), shown.shape[1], kept.shape[1], kept.shape[1]))
    except RuntimeError:
        return False
    real = shown & kept[:, None, :, None]
    return bool((real == (kept[:, None, None, :] & kept[:, None, :, None])).all())
