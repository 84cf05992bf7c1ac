"""What a call's arrays must look like, and where a call lies among the measured workloads. NumPy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...ir.errors import InputError, did_you_mean
from ...ir.inputs.masks import real_tokens
from ...ir.spec import InputSpec

Feed = Mapping[str, np.ndarray]
_IDS = ("token_ids", "decoder_token_ids")
_SEQUENCES = ("hidden", "audio_features", "pixel_values")


def check(inputs: Sequence[InputSpec], symbols: Mapping[str, tuple[int, int]], feed: Feed) -> dict[str, int]:
    """Refuse a feed that the graph would fail on or, worse, would read past a table's end with.

    Returns:
        The size of every symbol.

    Raises:
        InputError: no mapping at all; else naming the input, what it is and what the model takes: a missing
            or an unknown name, dtype, rank, a fixed dimension, a symbol outside its bounds or unlike in two
            inputs, an id outside [low, high).
    """
    if not isinstance(feed, Mapping):
        names = ", ".join(repr(spec.name) for spec in inputs)
        raise InputError(f"run takes a dict of NumPy arrays by input name ({names}), not a {_kind(feed)}")
    if len(feed) != len(inputs) or any(spec.name not in feed for spec in inputs):
        _refuse_names(inputs, feed)
    bound: dict[str, tuple[int, str]] = {}
    for spec in inputs:
        array = feed[spec.name]
        _check_array(spec, array)
        _check_shape(spec, array.shape, symbols, bound)
    sizes = {symbol: size for symbol, (size, _) in bound.items()}
    check_ids(inputs, feed, sizes)
    return sizes


def check_ids(inputs: Sequence[InputSpec], feed: Feed, sizes: Mapping[str, int]) -> None:
    """Refuse ids that no table has, and indices beyond the axis that they index. Raises InputError.

    sizes: of every symbol of the call.
    """
    for spec in inputs:
        if not feed[spec.name].size:
            continue
        if spec.high:
            _check_ids(spec, feed[spec.name])
        elif spec.indexes and spec.follows is not None:
            size = sizes[spec.follows] if isinstance(spec.follows, str) else spec.follows
            low, high = feed[spec.name].min(), feed[spec.name].max()
            if low < spec.reach - size or high >= size + spec.reach:
                wrong = low if low < spec.reach - size else high
                raise InputError(
                    f"{spec.name}: {wrong} is out of range; at {spec.follows} {size} indices go from "
                    f"{spec.reach} to {size + spec.reach - 1}, or as far back from the end"
                )


def from_the_start(inputs: Iterable[InputSpec], feed: Feed, sizes: Mapping[str, int]) -> Feed:
    """A checked feed whose indices all count from the start: from a padded axis' end they are others."""
    moved = {}
    for spec in inputs:
        array = feed[spec.name]
        if spec.indexes and spec.follows is not None and array.size and array.min() < spec.reach:
            size = sizes[spec.follows] if isinstance(spec.follows, str) else spec.follows
            moved[spec.name] = np.where(array < spec.reach, array + size, array).astype(array.dtype)
    return {**feed, **moved} if moved else feed


def _kind(value: object) -> str:
    return type(value).__name__


def _check_array(spec: InputSpec, array: object) -> None:
    if not isinstance(array, np.ndarray):
        raise InputError(f"{spec.name}: a {_kind(array)} was given; pass a NumPy {spec.dtype} array")
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{spec.name}: a runtime knows no masked arrays; pass .filled(...) of it")
    if array.dtype.name != spec.dtype:
        raise InputError(
            f"{spec.name}: its dtype is {array.dtype.name} and the model takes {spec.dtype}; "
            f"convert it with .astype({spec.dtype!r})"
        )
    if not array.dtype.isnative:
        raise InputError(
            f"{spec.name}: its bytes are in the other order than this machine's; "
            f"convert it with .astype({spec.dtype!r})"
        )


def _refuse_names(inputs: Sequence[InputSpec], feed: Feed) -> None:
    names = [spec.name for spec in inputs]
    for name in names:
        if name not in feed:
            raise InputError(f"the input {name!r} is missing; the model takes {', '.join(names)}")
    unknown = next(name for name in feed if name not in names)
    raise InputError(f"the model has no input {unknown!r}{did_you_mean(str(unknown), names)}")


def _check_shape(
    spec: InputSpec,
    shape: tuple[int, ...],
    symbols: Mapping[str, tuple[int, int]],
    bound: dict[str, tuple[int, str]],
) -> None:
    if len(shape) != len(spec.shape):
        wanted = ", ".join(map(str, spec.shape))
        raise InputError(f"{spec.name}: its shape is {list(shape)} and the model takes [{wanted}]")
    for axis, (size, dim) in enumerate(zip(shape, spec.shape, strict=True)):
        if isinstance(dim, int):
            if size != dim:
                raise InputError(f"{spec.name}: axis {axis} is {size} and the model takes {dim}")
            continue
        first = bound.setdefault(dim, (size, spec.name))
        if first[0] != size:
            raise InputError(f"{spec.name}: its {dim} is {size}, but that of {first[1]} is {first[0]}")
        low, high = symbols.get(dim, (0, size))
        if not low <= size <= high:
            edge = f"at least {low}" if size < low else f"at most {high}"
            raise InputError(f"{spec.name}: its {dim} is {size} and the model takes {edge}")


def _check_ids(spec: InputSpec, array: np.ndarray) -> None:
    low, high, bound = array.min(), array.max(), spec.high or 0
    if low < spec.low or high >= bound:
        wrong = low if low < spec.low else high
        raise InputError(f"{spec.name}: {wrong} is out of range; ids go from {spec.low} to {bound - 1}")


def sized_by(inputs: Sequence[InputSpec]) -> InputSpec:
    """The input that says how large a call is: ids, else hidden states, sound or pixels, else the first."""
    ids = [spec for role in _IDS for spec in inputs if spec.role == role]
    wide = [spec for spec in inputs if len(spec.shape) > 1 and spec.role != "mask"]
    floats = [spec for spec in wide if "float" in spec.dtype]
    known = [spec for spec in floats if spec.role in _SEQUENCES]
    return (*ids, *known, *floats, *inputs)[0]


def coordinates(inputs: Sequence[InputSpec], feed: Feed) -> tuple[int, int, float]:
    """(batch, length, padding share) of a call: what decides which graph is fastest for it.

    Batch and length are the axes of the token ids, or the first and the next free one of what else is the
    largest; length is 1 where there is none (images of one size). padding: share of masked tokens by the
    attention mask, 0 without one.
    """
    spec = sized_by(inputs)
    shape = feed[spec.name].shape
    free = (size for size, dim in zip(shape[1:], spec.shape[1:], strict=True) if isinstance(dim, str))
    length = next(free, 1)
    real = next(iter(real_tokens(inputs, feed, "attention_mask").values()), None)
    padding = 1.0 - np.count_nonzero(real) / real.size if real is not None and real.size else 0.0
    return (shape[0] if shape else 1), length, padding
