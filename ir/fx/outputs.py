"""What a module returns, as a flat list of named tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


def flattened(output: Any) -> tuple[list[tuple[str, Tensor]], list[str]]:
    """(name and tensor of every tensor in it, names of what is neither a tensor nor None).

    Mappings, dataclasses and named tuples give their keys, tuples and lists output_0, output_1, ..., one
    tensor "output"; what lies deeper is named by its path (more_0). Other containers that PyTorch knows (a
    cache of keys and values) are opened as it opens them.
    """
    if isinstance(output, Tensor):
        return [("output", output)], []
    named = _fields(output) is not None
    tensors, dropped, taken = [], [], set[str]()
    for path, leaf in _leaves(output, ()):
        head, *rest = path or ("output",)
        name = "_".join([head if named or not path else f"output_{head}", *rest])
        if not isinstance(leaf, Tensor):
            dropped.append(name)
            continue
        unique, number = name, 1  # {"a": [x], "a_0": y}
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique)
        tensors.append((unique, leaf))
    return tensors, dropped


def renamed(outputs: Sequence[str], inputs: Collection[str]) -> dict[str, str]:
    """Names for outputs that no input has, in order: a graph's values have one name each."""
    taken = {*outputs, *inputs}
    found = {}
    for name in outputs:
        free = name
        while free in inputs or (free != name and free in taken):
            free = f"{free}_out"
        taken.add(free)
        found[name] = free
    return found


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if value is None:
        return
    items = _fields(value)
    if items is None and isinstance(value, tuple | list):
        items = {str(i): each for i, each in enumerate(value)}
    if items is not None:
        for key, each in items.items():
            yield from _leaves(each, (*path, key))
    elif not isinstance(value, Tensor) and type(value) in pytree.SUPPORTED_NODES:
        for keys, leaf in pytree.tree_flatten_with_path(value)[0]:
            if leaf is not None:
                yield (*path, *map(_key, keys)), leaf
    else:
        yield path, value


def _fields(value: Any) -> dict[str, Any] | None:
    """The parts of a container whose parts have names; None of anything else."""
    if isinstance(value, Mapping):
        return {str(key): each for key, each in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=True))
    return None


def _key(entry: Any) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry))))
