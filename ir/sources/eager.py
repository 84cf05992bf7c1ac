"""A module run as PyTorch runs it, to hold a trace against; it and its tensors stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..fx.export import Call, plainly
from ..fx.outputs import flattened
from ..fx.untouched import Writes, untouched
from ..host.quiet import quiet

AGREE = 1e-4  # of max(1, |reference|), on a float32 output
REFUSALS = (
    RuntimeError, IndexError, ValueError, TypeError, AssertionError, KeyError, AttributeError,
    ArithmeticError,
)  # fmt: skip
"""What a forward raises for inputs that it doesn't take."""


@dataclass
class Eager:
    """The module in evaluation mode. writes: what the last calls wrote to; wrote: which of their tensors."""

    module: nn.Module
    call: Call
    writes: Writes = field(default_factory=Writes)
    wrote: list[bool] = field(default_factory=list)

    def __call__(self, *runs: Sequence[Tensor], seeds: Sequence[int] = ()) -> list[list[Tensor]]:
        """The outputs of calls in a row: what one call leaves in the module is there at the next, and gone
        after the last. seeds: of the random numbers of each; by default of all the same."""
        results = []
        given = [[tensor.clone() for tensor in tensors] for tensors in runs]
        with torch.no_grad(), quiet(), plainly(), untouched(self.module) as self.writes:
            self.writes.keep(given)
            for tensors, seed in zip(given, seeds or [0] * len(given), strict=True):
                torch.manual_seed(seed)
                args, kwargs = self.call(tensors)
                found, _ = flattened(self.module(*args, **kwargs))
                results.append([tensor.detach().clone() for _, tensor in found])
        self.wrote = [any(self.writes.changed(row[i]) for row in given) for i in range(len(given[0]))]
        return results


def difference(expected: Sequence[Tensor], got: Sequence[Tensor], agree: float = AGREE) -> str:
    """In words, how outputs differ from those expected; empty when they agree.

    NaN agrees with NaN alone, and infinity with infinity of its sign. Types of less precision than float32
    are held to a few of their own steps.
    """
    for a, b in zip(expected, got, strict=True):
        if a.shape != b.shape:
            return f"shape {tuple(b.shape)} instead of {tuple(a.shape)}"
        if a.dtype != b.dtype:
            return f"{b.dtype} instead of {a.dtype}"
        distance = apart(a, b)
        if a.is_floating_point():
            agree = max(agree, 8 * torch.finfo(a.dtype).eps)
        if distance > agree:
            return f"values differ by {distance:.2g}"
    return ""


def apart(a: Tensor, b: Tensor) -> float:
    """The largest |a - b| / max(1, |a|); infinite where one alone is NaN or infinite, or numbers that are no
    floats differ."""
    if not a.numel():
        return 0.0
    if not (a.is_floating_point() or a.is_complex()):
        return float("inf") if (a != b).any() else 0.0
    scaled = ((a - b).abs() / a.abs().clamp(min=1)).nan_to_num(torch.inf)
    return float(torch.where((a == b) | (a.isnan() & b.isnan()), torch.zeros_like(scaled), scaled).amax())


def shifted(a: Tensor, b: Tensor) -> float:
    """|a - b| / |a|, both norms over what is finite in both; infinite where NaN stand elsewhere."""
    a, b = a.double(), b.double()
    if not torch.equal(a.isnan(), b.isnan()):
        return float("inf")
    both = a.isfinite() & b.isfinite()
    size, moved = a[both].norm(), (a[both] - b[both]).norm()
    return float(moved / size) if size else float(moved)


def empty_of_numbers(outputs: Sequence[Tensor]) -> bool:
    """Whether every output is NaN throughout: comparing those says nothing."""
    return all(t.is_floating_point() and bool(t.isnan().all()) for t in outputs)


def drawn(
    feed: Mapping[str, Tensor],
    shapes: Mapping[str, Sequence[int]],
    seed: int,
) -> list[Tensor]:
    """Tensors of other shapes and values: each input's are drawn from its example's, apart from the others'.

    A float input that is constant moves about its value; an integer one stays: no other value is known of it.
    """
    generator = torch.Generator().manual_seed(seed)
    tensors = []
    for name, tensor in feed.items():
        values = tensor.reshape(-1)
        shape = tuple(shapes[name])
        picked = values[torch.randint(len(values), shape, generator=generator)]
        if tensor.is_floating_point() and bool((values == values[0]).all()):
            noise = torch.randn(shape, generator=generator).to(tensor.dtype)
            picked = picked + 0.2 * noise * values[0].abs().clamp(min=1)
        tensors.append(picked)
    return tensors


def resized(feed: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]) -> list[Tensor]:
    """The example's first elements along every axis, over again where there are not enough."""
    tensors = []
    for name, tensor in feed.items():
        for axis, size in enumerate(shapes[name]):
            if size != tensor.shape[axis]:
                tensor = tensor.index_select(axis, torch.arange(size) % tensor.shape[axis])
        tensors.append(tensor)
    return tensors
