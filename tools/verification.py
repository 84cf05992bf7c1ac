"""`optimize verify A B`: the same outputs on probe inputs, or how far apart they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..ir.errors import InputError
from ..ir.masks import real_tokens
from ..ir.probe import probes
from ..passes.verify import describe, scaled_distance
from .opened import Opened, open_model


@dataclass(frozen=True)
class Verdict:
    """distance: the largest |B - A| / max(1, |A|) at real tokens, over outputs and probes; at `where`."""

    same: bool
    distance: float
    tolerance: float
    probes: int
    where: str

    @property
    def sentence(self) -> str:
        verb = "agree" if self.same else "differ"
        return (
            f"they {verb}: at most {self.distance:.3g} apart on {self.probes} probe inputs "
            f"(limit {self.tolerance:g}), at {self.where}"
        )

    def to_json(self) -> dict[str, Any]:
        distance = self.distance if np.isfinite(self.distance) else None
        return {**asdict(self), "distance": distance}


def verify(first: str, second: str, tolerance: float = 1e-4, seed: int = 0) -> Verdict:
    """Compare two models on inputs of several batch sizes, lengths and masks.

    Where an output has a value for each token, those at padding are left out: nobody reads them, and an
    optimised model need not compute them.

    Raises:
        InputError: the models take different inputs, or share no output.
    """
    a, b = open_model(first), open_model(second)
    _same_inputs(a, b)
    outputs = _matched(a, b)
    feeds = probes(a.program, seed)
    worst, where = -1.0, ""
    for feed in feeds:
        old, new = a.run(feed), b.run(feed)
        for left, right in outputs:
            expected, actual = old[left], new[right]
            if expected.shape != actual.shape:
                distance = float("inf")
            else:
                masks = real_tokens(a.program.inputs, feed).values()
                keep = next((real for real in masks if expected.shape[:2] == real.shape), None)
                if keep is not None:
                    expected, actual = expected[keep], actual[keep]
                distance = scaled_distance(expected.astype(np.float64), actual.astype(np.float64))
                if np.isnan(actual).any() and not np.isnan(expected).any():
                    distance = float("inf")
            if distance > worst:
                worst, where = distance, f"{left} for {describe(feed)}"
    return Verdict(worst <= tolerance, worst, tolerance, len(feeds), where)


def _same_inputs(a: Opened, b: Opened) -> None:
    left, right = ({spec.name for spec in each.program.inputs} for each in (a, b))
    if left != right:
        only = ", ".join(sorted(left ^ right))
        raise InputError(f"{a.name} and {b.name} take different inputs (only one takes {only})")


def _matched(a: Opened, b: Opened) -> list[tuple[str, str]]:
    """Output names to compare: the shared ones, or one for one where each has a single output."""
    shared = [(name, name) for name in a.program.outputs if name in b.program.outputs]
    if not shared and len(a.program.outputs) == len(b.program.outputs) == 1:
        shared = [(a.program.outputs[0], b.program.outputs[0])]
    if not shared:
        left, right = (", ".join(each.program.outputs) for each in (a, b))
        raise InputError(f"{a.name} gives {left} and {b.name} gives {right}: nothing to compare")
    return shared
