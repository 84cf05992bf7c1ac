"""A trace beside the module that it is of, at other sizes and on other values than the example's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .eager import REFUSALS, Eager, difference, drawn, empty_of_numbers, resized

Shapes = Mapping[str, tuple[int | str, ...]]
Step = Callable[[int], int]
NEAR: tuple[Step, Step] = (lambda size: 1, lambda size: -1)
FAR: tuple[Step, Step] = (lambda size: max(size // 2, 1), lambda size: -size)


@dataclass(frozen=True)
class Trial:
    """eager: the module. feed: its example by input name. shapes: integers and symbols, per input. graph: the
    trace. symbols: the bounds that it states."""

    eager: Eager
    feed: Mapping[str, Tensor]
    shapes: Shapes
    graph: Callable[..., Sequence[Tensor]]
    symbols: Mapping[str, tuple[int, int]]

    @property
    def sizes(self) -> dict[str, int]:
        """The example's size of every symbol."""
        return {
            dim: self.feed[name].shape[axis]
            for name, shape in self.shapes.items()
            for axis, dim in enumerate(shape)
            if isinstance(dim, str)
        }

    def at(self, sizes: Mapping[str, int]) -> str | None:
        """How the trace differs from the module at these sizes, in words; empty where it doesn't. None where
        the module itself takes none of the values that were tried."""
        numbers = {
            name: tuple(sizes[dim] if isinstance(dim, str) else dim for dim in shape)
            for name, shape in self.shapes.items()
        }
        compared: str | None = None
        for tensors in (drawn(self.feed, numbers, 2), resized(self.feed, numbers), self._within(numbers)):
            expected = run(self.eager, tensors)
            if expected is None or (compared is not None and empty_of_numbers(expected)):
                continue
            try:
                with torch.no_grad():
                    compared = difference(expected, self.graph(*(t.clone() for t in tensors)))
            except REFUSALS as error:
                compared = str(error).split("\n")[0] or type(error).__name__
            if compared or not empty_of_numbers(expected):
                return compared
        return compared

    def _within(self, numbers: Mapping[str, tuple[int, ...]]) -> list[Tensor]:
        """The example with integers that may be places or lengths kept below every size that shrank."""
        smaller = [
            new
            for name, shape in numbers.items()
            for new, old in zip(shape, self.feed[name].shape, strict=True)
            if new < old
        ]
        tensors = resized(self.feed, numbers)
        if not smaller:
            return tensors
        return [
            t if t.is_floating_point() or t.dtype == torch.bool else t.clamp(max=max(min(smaller) - 1, 0))
            for t in tensors
        ]

    def moved(self, by: Step | None = None) -> dict[str, int]:
        """Other sizes than the example's, apart where the example's are equal. by: from a size, how much
        smaller, or larger where negative; by default 1, smaller where that can be."""
        steps: dict[int, int] = {}
        found = {}
        for symbol, size in self.sizes.items():
            step = by(size) if by else 1
            steps[size] = count = steps.get(size, -1) + 1
            found[symbol] = self._other(symbol, size, step + (count if step > 0 else -count))
        return found

    def everywhere(self) -> str | None:
        """`at` with every symbol moved, first a little, then far; a difference names its sizes."""
        found = None
        for tries in ([self.moved()], [self.moved(by) for by in FAR]):
            for sizes in tries:
                if (found := self.at(sizes)) is not None:
                    break
            if found != "":
                return f"{found} at {sizes or 'its example'}" if found else found
        return found

    def alone(self, symbols: Sequence[str]) -> str | None:
        """`at` with these symbols one smaller than in the example, or one larger where the module doesn't
        take that; then at half of it, or twice: an image one pixel wider may have as many patches. All others
        as in the example."""
        found = None
        for tries in (NEAR, FAR):
            found = self._first(
                [{s: self._other(s, self.sizes[s], by(self.sizes[s])) for s in symbols} for by in tries]
            )
            if found != "":
                break
        return found

    def _first(self, tries: Sequence[Mapping[str, int]]) -> str | None:
        """`at` of the first sizes that the module takes."""
        for changed in tries:
            if changed.items() <= self.sizes.items():
                continue
            if (found := self.at({**self.sizes, **changed})) is not None:
                return found
        return None

    def _other(self, symbol: str, size: int, step: int) -> int:
        low, high = self.symbols[symbol]
        smaller, larger = size - step, size + abs(step)
        if step > 0 and smaller >= max(2, low):
            return smaller
        return min(larger, high) if size < high else max(size - abs(step), low)


def run(eager: Eager, tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """The module's outputs; None where it doesn't take the tensors."""
    try:
        (found,) = eager(tensors)
    except REFUSALS:
        return None
    return found
