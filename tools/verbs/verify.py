"""`optimize verify A B`: the same outputs on probe inputs, or how far apart they are."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...ir.agreement import difference, scaled_distance, unverified, vacuity
from ...ir.errors import InputError
from ...ir.inputs.masks import masks_along
from ...ir.inputs.probe import probes, shared
from ...passes.manager.verify import describe
from ..opened import Opened, open_model


@dataclass(frozen=True)
class Verdict:
    """distance: the largest |B - A| / max(1, |A|) at real tokens, over outputs and probes; at `where`;
    infinite for what no tolerance excuses. difference: how they differ, in words; empty where they agree.
    unverified: which outputs say nothing on any probe, in a sentence. alone: outputs that only one has."""

    same: bool
    distance: float
    tolerance: float
    probes: int
    where: str
    difference: str = ""
    unverified: str = ""
    alone: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        if self.unverified and not self.difference:
            return f"not verified: {self.unverified}"
        at = f"on {self.probes} probe inputs (limit {self.tolerance:g}), at {self.where}"
        if not self.difference:
            sentence = f"they agree: at most {self.distance:.3g} apart {at}"
        elif np.isfinite(self.distance):
            sentence = f"they differ: at most {self.distance:.3g} apart {at}"
        else:
            sentence = f"they differ: B {self.difference} {at}"
        names = ", ".join(f"'{name}'" for name in self.alone)
        return sentence + (f"; only one of them gives {names}, which was not compared" if names else "")

    @property
    def status(self) -> int:
        """0 where they agree, 1 where they differ, 3 where nothing was verified."""
        return 0 if self.same else 1 if self.difference else 3

    def to_json(self) -> dict[str, Any]:
        distance = self.distance if np.isfinite(self.distance) else None
        return {**asdict(self), "distance": distance}


def verify(first: str, second: str, tolerance: float = 1e-4, seed: int = 0) -> Verdict:
    """Compare two models on inputs of several batch sizes, lengths and masks.

    Where an output has a value for each token, those at padding are left out: nobody reads them, and an
    optimised model need not compute them. A memory that one of them has alone is empty.

    Raises:
        InputError: the models take different inputs, or share no output.
    """
    a, b = open_model(first), open_model(second)
    gained = _same_inputs(a, b)
    outputs = _matched(a, b)
    feeds = [
        {name: array for name, array in feed.items() if name not in gained}
        for feed in probes(shared(a.program, b.program), seed)
    ]
    compared: dict[str, list[np.ndarray]] = {left: [] for left, _ in outputs}
    worst, where, how = -1.0, "", ""
    for feed in feeds:
        old, new = a.run(feed), b.run(feed)
        for left, right in outputs:
            expected, actual = old[left], new[right]
            keep = next(iter(masks_along(a.program.inputs, feed, expected.shape)), None)
            if keep is not None and expected.shape == actual.shape:
                expected, actual = expected[keep], actual[keep]
            compared[left].append(expected)
            words = difference(expected, actual, tolerance)
            distance = scaled_distance(expected, actual)
            if distance > worst:
                worst, where, how = distance, f"{left} for {describe(feed)}", words
    nothing = unverified({name: vacuity(arrays) for name, arrays in compared.items()})
    alone = set(a.program.outputs) ^ set(b.program.outputs) if _shared(a, b) else set()
    return Verdict(
        not how and not nothing, worst, tolerance, len(feeds), where, how, nothing, tuple(sorted(alone))
    )


def _same_inputs(a: Opened, b: Opened) -> set[str]:
    """Names of the memory that one of them has alone: it is left empty."""
    left, right = ({spec.name: spec for spec in each.program.inputs} for each in (a, b))
    only = left.keys() ^ right.keys()
    if any(not (left | right)[name].given_by for name in only):
        said = ", ".join(sorted(only))
        raise InputError(f"{a.name} and {b.name} take different inputs (only one takes {said})")
    return only


def _matched(a: Opened, b: Opened) -> list[tuple[str, str]]:
    """Output names to compare: the shared ones, or one for one where each has a single output."""
    shared = [(name, name) for name in _shared(a, b)]
    if not shared and len(a.program.outputs) == len(b.program.outputs) == 1:
        shared = [(a.program.outputs[0], b.program.outputs[0])]
    if not shared:
        left, right = (", ".join(each.program.outputs) for each in (a, b))
        raise InputError(f"{a.name} gives {left} and {b.name} gives {right}: nothing to compare")
    return shared


def _shared(a: Opened, b: Opened) -> list[str]:
    return [name for name in a.program.outputs if name in b.program.outputs]
