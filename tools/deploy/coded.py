"""What passes chose (`Context.chosen`) as JSON: numbers, texts, arrays, and dataclasses of the passes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any

import numpy as np

from ...ir.errors import ConfigError
from ...ir.host.files import FAULTS, why

MOST = 1 << 16  # characters of one choice: codes of whole weights are found again, not kept
_PACKAGE = __name__.rsplit(".tools.", 1)[0]
_PLAIN = (type(None), bool, int, float, str)


def encoded(chosen: Mapping[Any, Any]) -> list[Any]:
    """The choices as [key, value], without those that are large or hold what has no spelling here."""
    kept = []
    for key, value in chosen.items():
        try:
            pair = [_coded(key), _coded(value)]
        except TypeError:
            continue
        if len(json.dumps(pair)) <= MOST:
            kept.append(pair)
    return kept


def decoded(pairs: Iterable[Any]) -> dict[Any, Any]:
    """What `encoded` was given. Raises ConfigError for what it would not have written."""
    try:
        return {_read(key): _read(value) for key, value in pairs}
    except (*FAULTS, ImportError) as error:
        raise ConfigError(f"the lock's decisions can't be read ({why(error)}): build without it") from error


def _coded(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"arrays of {array.dtype} have no spelling")
        data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
        return {
            "array" if isinstance(value, np.ndarray) else "number": [array.dtype.str, list(array.shape), data]
        }
    if isinstance(value, tuple | list):
        return {"tuple" if isinstance(value, tuple) else "list": [_coded(each) for each in value]}
    if isinstance(value, Mapping):
        return {"dict": [[_coded(key), _coded(each)] for key, each in value.items()]}
    kind = type(value)
    if is_dataclass(kind) and kind.__module__.startswith(f"{_PACKAGE}.passes."):
        home = kind.__module__.removeprefix(f"{_PACKAGE}.")
        return {
            "object": [home, kind.__name__, {f.name: _coded(getattr(value, f.name)) for f in fields(value)}]
        }
    raise TypeError(f"{kind.__name__} has no spelling")


def _read(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    ((kind, content),) = value.items()
    if kind in ("array", "number"):
        dtype, shape, data = content
        array = np.frombuffer(base64.b64decode(data, validate=True), np.dtype(dtype)).reshape(shape).copy()
        return array if kind == "array" else array[()]
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(_read(each) for each in content)
    if kind == "dict":
        return {_read(key): _read(each) for key, each in content}
    if kind != "object":
        raise ValueError(f"there is nothing of the kind {kind!r}")
    home, name, told = content
    if not home.startswith("passes."):
        raise ValueError(f"{home} makes no choices")
    found = getattr(import_module(f"{_PACKAGE}.{home}"), name)
    if not (isinstance(found, type) and is_dataclass(found)):
        raise ValueError(f"{name} is no choice")
    return found(**{field: _read(each) for field, each in told.items()})
