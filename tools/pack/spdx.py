"""Licences by the names that SPDX gives them."""

from __future__ import annotations

from ...ir.errors import ConfigError, short


def check_licence(licence: str) -> None:
    """Raises ConfigError for what is no SPDX licence expression, or where cyclonedx-python-lib is missing."""
    try:
        from cyclonedx.spdx import is_expression
    except ImportError:
        raise ConfigError(
            "a licence is checked by cyclonedx-python-lib: pip install 'graphwright[pack]'"
        ) from None

    if not licence.strip() or not is_expression(licence):
        raise ConfigError(
            f"{short(licence)} is no SPDX licence expression: write one like MIT, or leave it out"
        )
