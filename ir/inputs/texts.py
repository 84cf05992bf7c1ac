"""What a caller hands over as texts, whatever holds them. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import InputError

MOST = 10_000_000  # texts of one call; a generator need not end


def listed(given: Any, what: str = "texts") -> list[str]:
    """The texts in a list, a NumPy array of strings, a generator or anything else that has an order.

    Args:
        what: what a refusal calls them.

    Raises:
        InputError: something else than one or more strings, in an order, of characters that UTF-8 has.
    """
    if isinstance(given, str):
        raise InputError(f"one string was given where a list of {what} is wanted; write [text]")
    if isinstance(given, bytes | bytearray | memoryview):
        raise InputError(f"{what} are strings and bytes were given; decode them first")
    if isinstance(given, set | frozenset | Mapping):
        raise InputError(f"a {_kind(given)} of {what} has no order to answer in; give a list")
    if not isinstance(given, Iterable) or getattr(given, "shape", None) == ():  # arrays without an axis
        raise InputError(f"{what} are a list of strings, not a {_kind(given)}")
    found: list[str] = []
    for text in given:
        if len(found) == MOST:
            raise InputError(f"at most {MOST:,} {what} go into one call; give them in several")
        found.append(_checked(text, what, len(found)))
    if not found:
        raise InputError(f"there are no {what}; give a list of one or more strings")
    return found


def _checked(text: Any, what: str, number: int) -> str:
    if not isinstance(text, str):
        raise InputError(f"{what} are strings, and {what}[{number}] is a {_kind(text)}")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise InputError(
                f"{what}[{number}] holds U+{code:04X}, half of a character; "
                "decode it anew with errors='replace'"
            ) from error
    return str(text)  # NumPy's strings are a class of their own


def _kind(value: Any) -> str:
    return type(value).__name__
