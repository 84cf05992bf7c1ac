"""API keys: where they come from, and whether a request carries one. Standard library only."""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...ir.errors import ConfigError
from ...ir.host.files import read_regular, why

VARIABLE = "GRAPHWRIGHT_API_KEY"
_MOST = 1 << 16  # bytes of a file of keys
_LEAST = 16  # characters of a key


def read_keys(file: str | None, environment: Mapping[str, str] = os.environ) -> tuple[bytes, ...]:
    """The keys that requests may carry: lines of a file, else the environment's variable; none of either asks
    for no key. An argument would be seen in `ps`.

    Raises:
        ConfigError: the file can't be read or has no key, or a key is one that no header can carry or that is
            soon guessed.
    """
    if file is None:
        return tuple(_checked(key, VARIABLE) for key in [environment.get(VARIABLE)] if key is not None)
    try:
        lines = read_regular(Path(file), _MOST).decode().split("\n")
    except (OSError, ValueError) as error:
        raise ConfigError(f"the file of API keys {file} can't be read: {why(error)}") from error
    keys = tuple(_checked(line.strip(), file) for line in lines if line.strip())
    if not keys:
        raise ConfigError(f"the file of API keys {file} has none: write one a line")
    return keys


def _checked(key: str, where: str) -> bytes:
    if len(key) < _LEAST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"an API key in {where} is not {_LEAST} or more ASCII letters, digits and signs without spaces"
        )
    return key.encode()


def carried(headers: Sequence[tuple[bytes, bytes]], keys: Sequence[bytes]) -> bool:
    """Whether headers have `Authorization: Bearer KEY`. Takes as long for a key that is nearly right."""
    given = [value for name, value in headers if name == b"authorization"]
    scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    matches = [hmac.compare_digest(key.strip(), each) for each in keys]
    return scheme.lower() == b"bearer" and any(matches)
