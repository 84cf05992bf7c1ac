"""Least values of kinds' options."""

from __future__ import annotations

from .kind import Kind
from .site import Site


def least(kind: Kind, **limits: int) -> None:
    """Raises ValueError where an option is below its limit, by its name."""
    for name, limit in limits.items():
        if (value := getattr(kind, name)) < limit:
            raise ValueError(f"{name} is {value}, and {limit} at least")


def too_long(block: int, site: Site) -> str:
    """Why a block can't be cut of a site's texts; empty where it can."""
    if site.longest is None or block <= site.longest:
        return ""
    return f"a block of {block} places is longer than the longest text, which has {site.longest}"
