"""What can stand in an attention's place, a file a kind; nothing is imported until one is asked for."""

from __future__ import annotations

from dataclasses import fields
from importlib import import_module
from typing import Any

from ....ir.errors import did_you_mean
from ..parts.kind import Kind

KINDS = (
    "adaptive-span",
    "axial",
    "bigbird",
    "block",
    "clustered",
    "conv",
    "entmax",
    "etc",
    "linear",
    "linformer",
    "lsh",
    "lsra",
    "nystrom",
    "performer",
    "random",
    "routing",
    "sinkhorn",
    "strided",
    "synthesizer",
    "window",
)


def kind(name: str, options: dict[str, Any]) -> Kind:
    """The kind of a name, with those options that were given (the others are None).

    Raises:
        ValueError: there is no such kind (names the nearest), it has no such option, or no such value.
    """
    if name == "memory":
        raise ValueError("a memory has inputs and outputs, so it is a pass of its own: segment-memory")
    if name not in KINDS:
        raise ValueError(f"there is no attention of kind {name!r}{did_you_mean(name, KINDS)}")
    made = getattr(import_module(f".{name.replace('-', '_')}", __name__), name.title().replace("-", ""))
    given = {option: value for option, value in options.items() if value is not None}
    known = {field.name for field in fields(made)}
    for option in given:
        if option not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it has none"
            raise ValueError(f"attention of kind {name!r} has no option {option!r}: {has}")
    return made(**given)
