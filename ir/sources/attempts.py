"""A model from a directory, traced with as many free sizes as it and torch.export allow, and what is said of
the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._sympy.functions import Mod, PythonMod

from ..errors import CaptureError
from ..fx.reasons import decides, place
from ..program import Program
from .examples import example_inputs
from .inputs import DECODER_LENGTH, Example

# One length for a model that is traced for one only: that of the default workload, unless code that runs
# over the tokens one by one would be written out that often.
_LONG, _SHORT = 128, 16
_TEXT = ("length", "decoder_length")
_IMAGE = ("height", "width")
_IMAGE_AXES = 4

Trace = Callable[[dict[str, Tensor], dict[str, tuple[int | str, ...]]], Program]


@dataclass(frozen=True)
class _Attempt:
    example: Example
    fixed: tuple[str, ...] = ()


def attempted(model: Any, directory: Path, example: Example, trace: Trace) -> Program:
    """The first of these that traces: all sizes free; images of one size; also texts of one length; also one
    number of rows.

    Args:
        model: from transformers. directory: of its processor's configuration.
        example: the inputs, with the axes that may be free. trace: of tensors and axes.

    Raises:
        CaptureError: none does; in words that name the model's own.
    """
    failed: CaptureError | None = None
    kind = type(model).__name__
    for attempt in _attempts(model, directory, example):
        try:
            program = _traced(model, attempt, trace)
        except CaptureError as error:
            failed = error  # the last one is of fixed sizes alone: what they can't mend
            continue
        stuck = () if attempt.fixed else _stuck(attempt, program)
        again = _of_length(model, directory, _SHORT) if stuck else None
        if again is not None:
            attempt = _Attempt(again, stuck)
            program = _traced(model, attempt, trace)
        return _said(program, attempt, kind)
    assert failed is not None
    reason = _reason(failed, kind)
    if example.left:
        raise CaptureError(f"{' '.join(example.left)}, and without it: {reason}")
    raise reason


def _reason(error: CaptureError, kind: str) -> CaptureError:
    """What torch.export says of values that decide what is computed, in words for a directory's user."""
    cause = error.__cause__
    if cause is None or not decides(cause):
        return error
    where = f" ({stopped})" if (stopped := place(cause)) else ""
    return CaptureError(
        f"{kind} decides by the values in its inputs what it computes{where}, and a graph holds one course "
        "of computation: load the model yourself, replace the method with that line by one that does the "
        "same for all values (every turn of a loop, one branch of an if), and give it to graphwright.trace."
    )


def _traced(model: Any, attempt: _Attempt, trace: Trace) -> Program:
    """One attempt; images of free sizes end at padded windows. Constants become part of forward."""
    free = "height" not in attempt.fixed and any("height" in axes for axes in attempt.example.axes.values())
    forward = model.forward
    if attempt.example.constants:
        model.forward = partial(forward, **attempt.example.constants)
    try:
        with no_padded_windows() if free else nullcontext():
            return trace(attempt.example.tensors, _axes(attempt))
    finally:
        if attempt.example.constants:
            del model.forward


def _attempts(model: Any, directory: Path, example: Example) -> Iterator[_Attempt]:
    labels = {label for axes in example.axes.values() for label in axes if isinstance(label, str)}
    yield _Attempt(example)
    images = tuple(label for label in _IMAGE if label in labels)
    if images:
        yield _Attempt(example, images)
    if labels & set(_TEXT):
        longer = _of_length(model, directory, _LONG) or example
        texts = tuple(label for label in _TEXT if label in labels)
        yield _Attempt(longer, (*images, *texts))
        yield _Attempt(longer, (*images, *texts, "batch"))
    else:
        yield _Attempt(example, (*images, "batch"))


def _of_length(model: nn.Module, directory: Path, length: int) -> Example | None:
    """The example with texts as long as this, or a half or quarter, as the tables of positions allow."""
    while length >= DECODER_LENGTH:
        try:
            return example_inputs(model, directory, length, length)
        except CaptureError:
            length //= 2
    return None


def _axes(attempt: _Attempt) -> dict[str, tuple[int | str, ...]]:
    return {
        name: tuple(
            size if label in attempt.fixed or isinstance(label, int) else label
            for label, size in zip(labels, attempt.example.tensors[name].shape, strict=True)
        )
        for name, labels in attempt.example.axes.items()
    }


def _stuck(attempt: _Attempt, program: Program) -> tuple[str, ...]:
    """Lengths of texts that were to be free and are fixed in the trace."""
    shapes = {spec.name: spec.shape for spec in program.inputs}
    return tuple(
        dict.fromkeys(
            label
            for name, labels in attempt.example.axes.items()
            for label, size in zip(labels, shapes.get(name, labels), strict=True)
            if label in _TEXT and isinstance(size, int)
        )
    )


def _said(program: Program, attempt: _Attempt, kind: str) -> Program:
    """Enters why each axis is fixed, and warns of lengths and rows."""
    sizes = dict(program.info.get("sizes", {}))
    reasons = dict(sizes.get("reasons", {}))
    notes = list(program.info.get("notes", ()))
    cause = f"torch.export can't trace {kind} for others"
    for name, labels in attempt.example.axes.items():
        shape = next((spec.shape for spec in program.inputs if spec.name == name), ())
        for axis, (label, size) in enumerate(zip(labels, shape, strict=False)):
            if isinstance(size, int):
                why = attempt.example.why.get(name) if label in _IMAGE or isinstance(label, int) else ""
                reasons[f"{name}.{axis}"] = why or ("the model's own" if isinstance(label, int) else cause)
    for label in attempt.fixed:
        if label not in _IMAGE:
            what = {"batch": "the number of rows", "length": "the length"}.get(label, "the decoder's length")
            size = next(
                attempt.example.tensors[n].shape[axes.index(label)]
                for n, axes in attempt.example.axes.items()
                if label in axes
            )
            notes.append(
                f"{what} is fixed at {size}: {cause}; for another, load the model yourself and give an "
                "example of that size."
            )
    notes += attempt.example.left
    for name, value in attempt.example.constants.items():
        notes.append(f"'{name}' is part of the graph, as {value[0].tolist()} for every row.")
    info = {**program.info, "sizes": sizes | {"reasons": reasons}}
    return replace(program, info=info | ({"notes": notes} if notes else {}))


class _Watch(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dim() >= _IMAGE_AXES:
            axes: tuple[Any, ...] = tuple(result.shape)
            sizes = [size.node.expr for size in axes if isinstance(size, torch.SymInt)]
            if sum(bool(size.atoms(Mod, PythonMod)) for size in sizes) > 1:
                raise CaptureError("the model pads images by their size.")
        return result


@contextmanager
def no_padded_windows() -> Iterator[None]:
    """Ends a trace at the first value two of whose axes are padded by their own size.

    Raises:
        CaptureError: there is one.
    """
    with _Watch():
        yield
