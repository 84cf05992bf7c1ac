"""Inputs to try a program on: several sizes and mask patterns, made from the specs of its inputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .cached import settled
from .program import MASKS, InputSpec, Program, numpy_dtype

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


def probes(program: Program, seed: int) -> list[Feed]:
    """Feeds at several batch sizes and lengths within the program's bounds, equal for equal seeds.

    Masks are all ones, right-padded, ragged, with a row of a single token, and left-padded. Ids stay below
    `high`; masked positions hold the padding id where the program knows one.
    """
    feeds = []
    seen = set()
    for number, (batch, length, mask) in enumerate(_PLANS):
        sizes = _sizes(program, batch, length)
        key = (tuple(sizes.items()), mask if any(spec.role in MASKS for spec in program.inputs) else "")
        if key not in seen:
            seen.add(key)
            feeds.append(feed(program, sizes, mask, np.random.default_rng([seed, number])))
    return feeds


def example(program: Program) -> Feed:
    """One feed to trace with: no axis of size one, and no two symbols of one size where bounds allow it."""
    return feed(program, _sizes(program, 2, 5), "right")


def _sizes(program: Program, batch: int, length: int) -> dict[str, int]:
    """A size for every symbol, as different from each other as their bounds let them be."""
    sizes = {}
    for number, (symbol, (low, high)) in enumerate(program.symbols.items()):
        wished = batch if symbol == "batch" else length + (number - 1 if length > 1 else 0)
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
        shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in spec.shape)
        arrays[spec.name] = _array(spec, shape, mask, rng)
    pad = program.info.get("pad_token_id")
    for spec in program.inputs:
        if spec.role in MASKS and pad is not None:
            _pad(program, arrays, spec, int(pad))
    return arrays


def _array(spec: InputSpec, shape: tuple[int, ...], mask: str, rng: np.random.Generator) -> np.ndarray:
    dtype = numpy_dtype(spec.dtype)
    if spec.role in MASKS:
        return _mask(shape, mask).astype(dtype)
    if spec.role == "position_ids":
        return np.broadcast_to(np.arange(shape[-1]) % (spec.high or shape[-1]), shape).astype(dtype)
    if spec.high is not None:
        return rng.integers(0, spec.high, shape).astype(dtype)
    if dtype.kind == "f" or dtype.kind == "V":
        return rng.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    return np.zeros(shape, dtype)


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
        if spec.role == role and spec.shape == mask.shape and pad < (spec.high or 0):
            arrays[spec.name] = np.where(arrays[mask.name] != 0, arrays[spec.name], pad).astype(
                arrays[spec.name].dtype
            )
