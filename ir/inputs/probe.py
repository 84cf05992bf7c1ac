"""Inputs to try a program on: several sizes and mask patterns, made from the specs of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..program import Program
from ..spec import MASKS, UNBOUNDED, InputSpec, numpy_dtype
from .cached import cache_of, settled

Feed = dict[str, np.ndarray]

# (batch, every other symbol, how rows are masked). Lengths are odd, so that tilings show their seams.
_PLANS = (
    (1, 1, "ones"),
    (1, 9, "ones"),
    (2, 7, "right"),
    (5, 13, "ragged"),
    (3, 11, "single"),
    (3, 5, "left"),
    (2, 33, "right"),
)

_FIRST = ((1, 1, "ones"), (1, 9, "ones"), (2, 7, "left"))  # calls of a decoder whose cache is empty
_FEW = 2  # a smallest size beyond this is one of convolutions, which are to give more than one frame


def probes(program: Program, seed: int) -> list[Feed]:
    """Feeds at several batch sizes and lengths within the program's bounds, equal for equal seeds.

    Masks keep all, are right-padded, ragged, with a row of a single token, and left-padded. Values stay
    within what is known of each input (`InputSpec`); masked positions hold the padding id where the program
    knows one. A decoder's cache is empty in some where it may be. The body of a loop or a branch is tried on
    what was seen to enter it.
    """
    if program.feeds:
        return [dict(feed) for feed in program.feeds]
    feeds = []
    seen = set()
    for number, (batch, length, mask) in enumerate(_PLANS):
        sizes = _sizes(program, batch, length)
        key = (tuple(sizes.items()), mask if _varies(program) else "")
        if key not in seen:
            seen.add(key)
            feeds.append(feed(program, sizes, mask, np.random.default_rng([seed, number])))
    cache = cache_of(program)
    if cache is not None and program.symbols[cache.past][0] == 0:
        for number, (batch, length, mask) in enumerate(_FIRST, len(_PLANS)):
            sizes = settled(program, {**_sizes(program, batch, length), cache.past: 0})
            feeds.append(feed(program, sizes, mask, np.random.default_rng([seed, number])))
    return feeds


def _varies(program: Program) -> bool:
    """Whether a pattern of masks says anything about the program's inputs."""
    return any(
        spec.role in (*MASKS, "mask") or spec.dtype == "bool" or spec.follows is not None
        for spec in program.inputs
    )


def example(program: Program, length: int = 5) -> Feed:
    """One feed to trace with: no axis of size one, and no two symbols of one size where bounds allow it."""
    return feed(program, example_sizes(program, length), "right")


def example_sizes(program: Program, length: int = 5) -> dict[str, int]:
    """What `example` gives each symbol."""
    return _sizes(program, 2, length)


def _sizes(program: Program, batch: int, length: int) -> dict[str, int]:
    """A size for every symbol, as different from each other as their bounds let them be."""
    sizes = {}
    for number, (symbol, (low, high)) in enumerate(program.symbols.items()):
        wished = batch if symbol == "batch" else length + (number - 1 if length > 1 else 0)
        if low > _FEW:  # of samples or pixels, which a frame or a patch has many of
            wished = low + (wished - 1) * (low // 2)
        sizes[symbol] = min(max(wished, low), high)
    return settled(program, sizes)


def feed(
    program: Program, sizes: Mapping[str, int], mask: str = "ones", rng: np.random.Generator | None = None
) -> Feed:
    """One feed at given sizes.

    Args:
        program: whose inputs to make.
        sizes: symbol -> size.
        mask: "ones"; "right" (the later half of every other row is padding); "ragged" (row r keeps
            length - r tokens); "single" (the last row keeps one); "left" (padding comes first).
        rng: source of ids and floats.
    """
    rng = rng or np.random.default_rng(0)
    arrays: Feed = {}
    for spec in program.inputs:
        arrays[spec.name] = values(spec, sizes, mask, rng)
    pad = program.info.get("pad_token_id")
    for spec in program.inputs:
        if spec.role in MASKS and pad is not None:
            _pad(program, arrays, spec, int(pad))
    return arrays


def values(spec: InputSpec, sizes: Mapping[str, int], pattern: str, rng: np.random.Generator) -> np.ndarray:
    """An array that an input accepts, by what is known of its values.

    Args:
        sizes: symbol -> size.
        pattern: of masks, as in `feed`; with "ones" flags are set and lengths are full.
    """
    shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
    dtype = numpy_dtype(spec.dtype)
    if spec.role in MASKS:
        return spec.masking(_mask(shape, pattern))
    if spec.role == "mask":
        return spec.masking(_hiding(shape, pattern, spec.low > 0))
    if spec.role == "cache_flag":
        filled = isinstance(spec.follows, str) and sizes[spec.follows] > 0
        return np.full(shape, (1 - spec.hidden) if filled else spec.hidden).astype(dtype)
    if spec.role == "position_ids":
        start = spec.seen[0] if spec.seen else spec.low
        count = max(1, (spec.high or start + shape[-1]) - start)
        return np.broadcast_to(start + np.arange(shape[-1]) % count, shape).astype(dtype)
    if spec.high is not None:
        ids = rng.integers(spec.low, max(spec.high, spec.low + 1), shape)
        # Corners of boxes: the second is nowhere before the first.
        return (np.sort(ids) if ids.ndim > 2 else ids).astype(dtype)
    if spec.follows is not None:
        size = sizes[spec.follows] if isinstance(spec.follows, str) else spec.follows
        end = max(size + spec.reach, spec.low + 1)
        full = spec.reach > 0 and pattern == "ones"
        return (np.full(shape, end - 1) if full else rng.integers(spec.low, end, shape)).astype(dtype)
    if dtype.kind in "fV":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype) if pattern == "ones" else rng.random(shape) < 0.5
    if spec.seen is not None:
        return rng.integers(spec.seen[0], spec.seen[1] + 1, shape).astype(dtype)
    return rng.integers(0, 2 if shape and pattern != "ones" else 1, shape).astype(dtype)


def shared(program: Program, other: Program) -> Program:
    """The program with the sizes and values of its inputs drawn in to what another one takes too, so that
    both run on its probes. Where they have no size in common it keeps its own."""
    taken = {spec.name: spec for spec in other.inputs}
    symbols = dict(program.symbols)
    inputs = []
    for spec in program.inputs:
        twin = taken.get(spec.name, spec)
        for dim, size in zip(spec.shape, twin.shape, strict=False):
            if isinstance(dim, str):
                low, high = other.symbols.get(size, (1, UNBOUNDED)) if isinstance(size, str) else (size, size)
                low, high = max(low, symbols[dim][0]), min(high, symbols[dim][1])
                symbols[dim] = (low, high) if low <= high else symbols[dim]
        highs = [each.high for each in (spec, twin) if each.high is not None]
        inputs.append(replace(spec, low=max(spec.low, twin.low), high=min(highs, default=None)))
    return replace(program, inputs=tuple(inputs), symbols=symbols)


def _hiding(shape: tuple[int, ...], pattern: str, visible: bool) -> np.ndarray:
    """What a mask of any rank keeps: by row where it has one, and where its last two axes are alike no later
    key for some of the patterns.

    visible: every query keeps itself; otherwise queries that are padding see nothing.
    """
    if pattern == "ones":
        return np.ones(shape, bool)
    if len(shape) < 2:
        return (np.arange(int(np.prod(shape))) % 3 != 2).reshape(shape)
    square = shape[-1] == shape[-2]
    rows = shape[0] if len(shape) > 2 or not square else 1
    keys = _mask((rows, shape[-1]), pattern)
    between = [1] * (len(shape) - 3)
    keep = keys.reshape(rows, *between, 1, shape[-1]) if len(shape) > 2 else keys
    if square:
        if pattern in ("ragged", "left") or len(shape) == 2:
            keep = keep & np.tri(shape[-1], dtype=bool)
        if visible:
            keep = keep | np.eye(shape[-1], dtype=bool)
        elif len(shape) > 2:
            keep = keep & keys.reshape(rows, *between, shape[-1], 1)
    return np.broadcast_to(keep, shape).copy()


def _mask(shape: tuple[int, ...], pattern: str) -> np.ndarray:
    """(rows, length) of zeros and ones; every row keeps at least one token."""
    rows, length = (int(np.prod(shape[:-1])), shape[-1])
    kept = np.full(rows, length)
    if pattern == "right":
        kept[::2] = (length + 1) // 2
    elif pattern in ("ragged", "left"):
        kept = np.maximum(1, length - np.arange(rows))
    elif pattern == "single":
        kept[-1] = 1
    keep = np.arange(length)[None] < kept[:, None]
    return (keep[:, ::-1] if pattern == "left" else keep).reshape(shape)


def _pad(program: Program, arrays: Feed, mask: InputSpec, pad: int) -> None:
    role = "token_ids" if mask.role == "attention_mask" else "decoder_token_ids"
    for spec in program.inputs:
        if spec.role == role and spec.shape == mask.shape and spec.low <= pad < (spec.high or 0):
            real = mask.kept(arrays[mask.name])
            arrays[spec.name] = np.where(real, arrays[spec.name], pad).astype(arrays[spec.name].dtype)
