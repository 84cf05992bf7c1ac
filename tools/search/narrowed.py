"""A --space file: dimensions of the space, each with the values that are left of it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    RootModel,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)

from ...ir.errors import ConfigError, did_you_mean, short
from ...passes.manager.varying import Between, Range, Value
from ..config import read
from .space import Space

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr


class Bounds(BaseModel):
    """Numbers from low to high."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: StrictInt | StrictFloat
    high: StrictInt | StrictFloat
    step: StrictInt | StrictFloat = 0
    log: bool = False


class Narrowing(RootModel[dict[str, list[Scalar] | Bounds]]):
    """Dimension -> values or bounds."""


def narrowed(space: Space, path: str | Path) -> Space:
    """The space with what a file leaves of some of its dimensions.

    Raises:
        ConfigError: it can't be read, names no dimension of the space, or leaves what is not in it.
    """
    given = read(path)
    try:
        wanted = Narrowing.model_validate(given).root
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = str(first["loc"][0]) if first["loc"] else "it"
        raise ConfigError(
            f"{path}: {where}: write values, as [4, 8], or bounds, as {{low: 0.5, high: 0.9}} "
            f"(given: {short(given.get(where))})"
        ) from error
    left = dict(space.dimensions)
    for name, one in wanted.items():
        if name not in left:
            raise ConfigError(f"{path}: the space has no dimension {short(name)}{did_you_mean(name, left)}")
        left[name] = _left(f"{path}: {name}", left[name], one)
    return replace(space, dimensions=left)


def _left(where: str, known: Range, wanted: list[Any] | Bounds) -> Range:
    if isinstance(wanted, list):
        values: tuple[Value, ...] = tuple(dict.fromkeys(wanted))
        strange = [value for value in values if not _holds(known, value)]
        if not values or strange:
            lacking = f"{short(strange[0])} is none of" if strange else "name at least one of"
            raise ConfigError(f"{where}: {lacking} {_said(known)}")
        return values
    if not isinstance(known, Between):
        raise ConfigError(f"{where}: it has values and no bounds: name some of {_said(known)}")
    if not known.low <= wanted.low <= wanted.high <= known.high:
        raise ConfigError(f"{where}: {wanted.low:g} to {wanted.high:g} is not within {_said(known)}")
    if known.step and not (known.holds(wanted.low) and known.holds(wanted.high)):
        raise ConfigError(f"{where}: {wanted.low:g} to {wanted.high:g} are no steps of {_said(known)}")
    low, high = (int(one) if known.whole else float(one) for one in (wanted.low, wanted.high))
    if known.whole and (low, high) != (wanted.low, wanted.high):
        raise ConfigError(f"{where}: {wanted.low:g} to {wanted.high:g} are no whole numbers")
    return replace(known, low=low, high=high)


def _holds(known: Range, value: Value) -> bool:
    if isinstance(known, Between):
        return known.holds(value)
    return any(value == one and type(value) is type(one) for one in known)


def _said(known: Range) -> str:
    if isinstance(known, Between):
        return f"{known.low:g} to {known.high:g}" + (f" in steps of {known.step:g}" if known.step else "")
    return ", ".join(map(str, known))


def shown(space: Space) -> str:
    """The space as such a file, which leaves all of it."""
    return yaml.safe_dump(space.to_json(), sort_keys=False, default_flow_style=None, width=math.inf)
