"""How a pattern of keys is cut into blocks, told from what it shows at a few lengths."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .blocks import Band, Table, banded, tabled
from .seen import Seen, bounded

MOST = 0.5  # of all keys; strided attention over 128 has 52%, and was 4 times as slow as full at 1,024
LONGEST = 5000  # that masks are computed for to find a rule: windows of 4,096 are common
TABLED = 8192  # that they are computed for to be written down
PADDED = 401  # that padding is tried at


def cut(seen: Seen, size: int) -> Band | Table:
    """The blocks of `size` places that hold what a site's queries see.

    Raises:
        ValueError: there is no pattern, or no blocks of it that spare anything; in words.
    """
    if seen.lengths is None:
        raise ValueError("its length is not that of an input")
    low, high = seen.lengths
    longest = min(high, LONGEST)
    if seen.reaches(longest):
        raise ValueError(f"it looks at all keys, as far as {longest} places")
    seen.check(max(low, min(PADDED, high)))
    earlier: Band | None = None
    for length in _lengths(low, high, size):
        shown = seen(length)
        if earlier is not None and (earlier.covers(length) == shown).all():
            return _sparing(earlier, high)
        earlier = None
        if shown.all() or (shown == np.tri(length, dtype=bool)).all():
            continue
        band = banded(shown, size)
        if (band.covers(length) == shown).all():
            if length == high:
                forms: list[Band | Table] = [band, _table(seen, low, high, size)]
                return _sparing(min(forms, key=lambda form: form.keys), high)
            earlier = band
    if not bounded(high) or high > TABLED:
        reason = f"texts may have {high}" if bounded(high) else "nothing bounds the length of texts"
        raise ValueError(
            f"its pattern is no window, a table of its blocks is for {TABLED} places, and {reason}"
        )
    return _sparing(_table(seen, low, high, size), high)


def _table(seen: Seen, low: int, high: int, size: int) -> Table:
    whole = seen(high)
    shorter = max(low, high * 5 // 8)
    if (seen(shorter) != whole[:shorter, :shorter]).any():
        raise ValueError("its pattern depends on the length of the text")
    return tabled(whole, size)


def _lengths(low: int, high: int, size: int) -> Iterator[int]:
    length = 4 * size + 3
    while length < min(high, LONGEST):
        yield max(length, low)
        length *= 4
    yield min(high, LONGEST)


def _sparing(form: Band | Table, high: int) -> Band | Table:
    share = form.keys / (-(-high // form.size) * form.size) if bounded(high) else 0.0
    if share > MOST:
        raise ValueError(
            f"blocks of {form.size} that hold its pattern are {share:.0%} of all at {high} places, the most "
            "that a text has"
        )
    return form
