"""What "agree" means for an output, in one place: type and shape, NaN, infinities, integers, and how far
numbers are apart. And when agreeing says nothing: outputs that are NaN, constant or empty on every input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

Vacuity = Literal["", "empty", "NaN", "constant"]


def mismatch(expected: np.ndarray, actual: np.ndarray) -> str:
    """What no tolerance excuses, in words that follow an output's name; empty where there is none of it.

    Another type or shape; NaN on one side alone; infinities of other signs or in other places; integers,
    booleans and strings that are not the same.
    """
    if actual.dtype != expected.dtype:
        return f"became {actual.dtype} instead of {expected.dtype}"
    if actual.shape != expected.shape:
        return f"has shape {actual.shape} instead of {expected.shape}"
    if not floating(expected):
        other = int((expected != actual).sum())
        return f"has {other} of {expected.size} values that are not the same" if other else ""
    return _unlike(_wide(expected), _wide(actual))


def _unlike(a: np.ndarray, b: np.ndarray) -> str:
    new, gone = (int(each.sum()) for each in (np.isnan(b) & ~np.isnan(a), np.isnan(a) & ~np.isnan(b)))
    if new:
        return f"has {new} NaN where there was none"
    if gone:
        return f"has numbers in {gone} places where there was NaN"
    other = int((a != b)[np.isinf(a) | np.isinf(b)].sum())
    return f"has {other} infinities that the other lacks or has with another sign" if other else ""


def scaled_distance(expected: np.ndarray, actual: np.ndarray) -> float:
    """Largest |actual - expected| / max(1, |expected|) over the finite numbers of two arrays of one shape;
    infinite where `mismatch` has something to say, and 0 where nothing is left to compare."""
    if mismatch(expected, actual):
        return float("inf")
    if not floating(expected):
        return 0.0
    a, b = _wide(expected), _wide(actual)
    finite = np.isfinite(a)
    a, b = a[finite], b[finite]
    return float((np.abs(b - a) / np.maximum(1, np.abs(a))).max(initial=0))


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine between the rows (last axis) of a and b, finite; two zero rows agree (1), one zero row does not
    (0). float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    both_zero = ~a.any(axis=-1) & ~b.any(axis=-1)
    return np.where(both_zero, 1.0, (a * b).sum(axis=-1) / np.where(norms == 0, 1.0, norms))


def row_cosines(expected: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """Cosines between corresponding rows (last axis) of two arrays of one shape, float64 (rows,).

    Two zero rows agree, one zero row does not (0), and neither does NaN or an infinity on one side (-1). Rows
    with NaN or infinities in the same places are compared by their finite numbers, rows without any are left
    out.
    """
    if not expected.size:
        return np.empty(0)
    a = _wide(expected).reshape(-1, expected.shape[-1] if expected.ndim else 1)
    b = _wide(actual).reshape(a.shape)
    finite = np.isfinite(a)
    unlike = ((a != b) & ~(np.isnan(a) & np.isnan(b)) & ~(finite & np.isfinite(b))).any(axis=1)
    kept = finite.any(axis=1) | unlike
    both = finite & np.isfinite(b)
    a, b, unlike = np.where(both, a, 0)[kept], np.where(both, b, 0)[kept], unlike[kept]
    return np.where(unlike, -1.0, cosine(a, b))


def smallest_cosine(expected: np.ndarray, actual: np.ndarray) -> float:
    """The smallest of `row_cosines`; 1 where no row is left."""
    return float(row_cosines(expected, actual).min(initial=1.0))


def moved_share(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """|actual - expected| / |expected|, both norms over all finite numbers of all arrays; infinite where NaN
    or an infinity stands on one side alone."""
    a, b = (np.concatenate([_wide(x).ravel() for x in each]) for each in (expected, actual))
    if _unlike(a, b):
        return float("inf")
    finite = np.isfinite(a)
    size, moved = np.linalg.norm(a[finite]), np.linalg.norm(a[finite] - b[finite])
    return float(moved / size if size else moved)


def difference(expected: np.ndarray, actual: np.ndarray, tolerance: float) -> str:
    """How `actual` differs from `expected`, in words that follow an output's name; empty where they agree.

    Args:
        tolerance: of `scaled_distance`, for floating-point numbers.
    """
    if found := mismatch(expected, actual):
        return found
    distance = scaled_distance(expected, actual)
    return f"moved by {distance:.3g} (limit {tolerance:g})" if distance > tolerance else ""


def vacuity(arrays: Sequence[np.ndarray]) -> Vacuity:
    """Why comparing one output on these inputs would verify nothing; empty where it verifies something.

    "empty": no value on any input. "NaN": no other. "constant": one value everywhere, or the same row (last
    axis) for every input. A single row may be anything: it can't be told whether it depends on the input.
    """
    if not any(array.size for array in arrays):
        return "empty"
    filled = [array for array in arrays if array.size]
    if floating(filled[0]) and all(np.isnan(_wide(array)).all() for array in filled):
        return "NaN"
    if sum(array.size for array in filled) > 1 and _one_value(filled):
        return "constant"
    widths = {array.shape[-1] if array.ndim > 1 else 0 for array in filled}
    if len(widths) == 1 and 0 not in widths:
        rows = [array.reshape(-1, array.shape[-1]) for array in filled]
        if sum(map(len, rows)) > 1 and all(_same(row, rows[0][:1]) for row in rows):
            return "constant"
    return ""


def _one_value(arrays: Sequence[np.ndarray]) -> bool:
    values = [each[~np.isnan(_wide(each))] if floating(each) else each.ravel() for each in arrays]
    values = [each for each in values if each.size]
    return all((each == values[0][0]).all() for each in values)


def _same(rows: np.ndarray, row: np.ndarray) -> bool:
    same = rows == row
    if floating(rows):
        same |= np.isnan(_wide(rows)) & np.isnan(_wide(row))
    return bool(same.all())


def unverified(vacuities: Mapping[str, Vacuity], inputs: str = "probe input") -> str:
    """What was not verified, in a sentence without its full stop; empty where everything was.

    A constant output is excused where others vary: some models give one out beside their results.

    Args:
        vacuities: by output name.
        inputs: what they were compared on.
    """
    idle = bool(vacuities) and all(vacuities.values())
    told = {name: kind for name, kind in vacuities.items() if kind and (idle or kind != "constant")}
    if not told:
        return ""
    parts = ", ".join(f"'{name}' is {kind}" for name, kind in told.items())
    nothing = "nothing" if len(told) == len(vacuities) else "nothing of it"
    return f"{parts} on every {inputs}, so {nothing} was verified"


def floating(array: np.ndarray) -> bool:
    """Whether it holds real or complex numbers, which may be NaN and need not be the same to agree."""
    return array.dtype.kind in "fcV"  # V: what NumPy lacks, such as bfloat16


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64 if array.dtype.kind != "c" else np.complex128)
