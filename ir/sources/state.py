"""Does a module compute the same when it is called again? What it writes to is judged by that."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..errors import CaptureError
from ..fx.reasons import Draws
from ..fx.untouched import Writes
from .eager import Eager, difference, drawn, empty_of_numbers

_SAME = 1e-6  # of max(1, |reference|), between two calls of one module


def judged(eager: Eager, feed: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Calls a module twice with its example and with other values in between.

    Returns: the inputs that it writes into, and the buffers and weights that it writes to.

    Raises:
        CaptureError: the module refuses its example, gives nothing but NaN for it, or other outputs when it
            is called again: it keeps a state, or draws random numbers.
    """
    kind = type(eager.module).__name__
    example, shapes = list(feed.values()), {name: tensor.shape for name, tensor in feed.items()}
    try:
        first, _, again = eager(example, drawn(feed, shapes, 1), example, seeds=(0, 0, 1))
    except Exception:
        first, again = _twice(eager, example)  # other values may be none that it takes
    if first and empty_of_numbers(first):
        raise CaptureError(
            f"{kind} gives nothing but NaN for its example inputs: give an example that it"
            " computes something for."
        )
    writes, inputs = eager.writes, [name for name, wrote in zip(feed, eager.wrote, strict=True) if wrote]
    weights = [name for name, weight in eager.module.named_parameters() if writes.changed(weight)]
    if _differ(first, again):
        first, again = _twice(eager, example, seeds=(0, 0))
        with Draws() as draws:
            _twice(eager, example)
        raise CaptureError(_reason(kind, writes, not _differ(first, again), draws.at))
    return inputs, [*writes.buffers, *weights]


def _twice(eager: Eager, example: list[Tensor], seeds: tuple[int, int] = (0, 1)) -> list[list[Tensor]]:
    try:
        return eager(example, example, seeds=seeds)
    except CaptureError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CaptureError(f"{type(eager.module).__name__} fails on its example inputs: {reason}") from error


def _differ(first: list[Tensor], again: list[Tensor]) -> bool:
    return len(first) != len(again) or bool(difference(first, again, _SAME))


def _reason(kind: str, writes: Writes, random: bool, at: str) -> str:
    """Why a module's outputs differ from call to call. at: where it draws random numbers."""
    if writes.buffers or writes.attributes:
        noun, names = ("buffer", writes.buffers) if writes.buffers else ("attribute", writes.attributes)
        return (
            f"{kind} changes its {_listed(noun, names)} when it runs, and its outputs depend on that: they "
            "differ from call to call, which a graph can't hold; make the state an input and an output, or "
            "keep it from changing."
        )
    if random:
        return (
            f"{kind} draws random numbers when it runs, in evaluation mode too{f' ({at})' if at else ''}: "
            "its outputs differ from call to call, which a graph can't hold; leave the draw out of its "
            "forward, or make what is drawn an input."
        )
    return (
        f"{kind} gives other outputs when it is called again with the same inputs: what it computes depends "
        "on more than them, which a graph can't hold."
    )


def _listed(noun: str, names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{noun}{'' if len(names) == 1 else 's'} {shown}{more}"
