"""A module and the tensors that it reads, as they were once a call is over.

A forward may count its calls, keep a running mean, renormalise a table (nn.Embedding's max_norm) or write
into its arguments. Buffers are copied beforehand; what else an operator writes to and was there before is
copied right before the first write, so a model of several gigabytes is not copied for a weight that changes.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_DICTS = (dict, OrderedDict, defaultdict)


class Writes(TorchDispatchMode):
    """Copies what operators are about to write to. buffers: names of the module's buffers that changed;
    attributes: names of what else did; both known when the block of `untouched` has ended."""

    supports_higher_order_operators = True  # torch.cond: what its branches write to is not seen

    def __init__(self) -> None:
        super().__init__()
        self.buffers: list[str] = []
        self.attributes: list[str] = []
        self._made: set[int] = set()
        self._before: dict[int, tuple[Tensor, Tensor]] = {}
        self._changed: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        if schema is not None and schema.is_mutable:
            for i, argument in enumerate(schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    self.keep(args[i] if i < len(args) else kwargs.get(argument.name))
        result = func(*args, **kwargs)
        held = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        made = {_storage(leaf) for leaf in tree_leaves(result) if isinstance(leaf, Tensor)}
        self._made |= made - held
        return result

    def keep(self, value: Any) -> None:
        """Copies the tensors in `value`, unless they were made since, or copied already."""
        for tensor in (leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)):
            storage = _storage(tensor)
            if storage and storage not in self._made and storage not in self._before:
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.detach().untyped_storage())
                self._before[storage] = (whole, whole.clone())

    def undo(self) -> None:
        """Puts back what was written over."""
        for storage, (whole, before) in self._before.items():
            if not torch.equal(whole, before):
                self._changed.add(storage)
                whole.copy_(before)

    def changed(self, tensor: Tensor) -> bool:
        """Whether a tensor that was there before was written over."""
        return _storage(tensor) in self._changed


@contextmanager
def attributes_kept(module: nn.Module) -> Iterator[list[str]]:
    """Until the block ends. Then the attributes of the module and its parts, dicts, lists and sets among
    them, hold what they held, and the list has the names of those that didn't."""
    before = [(name, part, _copied(vars(part), set())) for name, part in module.named_modules()]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, part, held in before:
            found = {key for key, (value, _) in held.items() if vars(part).get(key, held) is not value}
            found |= vars(part).keys() - held.keys()
            changed += [f"{name}.{key}".lstrip(".") for key in sorted(found)]
            _restore(vars(part), held)


@contextmanager
def untouched(module: nn.Module) -> Iterator[Writes]:
    """Until the block ends, collects what is written to. Then tensors hold their old bits, attributes their
    old values, and random numbers go on where they were."""
    buffers = dict(module.named_buffers())
    writes = Writes()
    writes.keep(list(buffers.values()))
    now: dict[str, Tensor | None] = {}
    try:
        with attributes_kept(module) as changed, torch.random.fork_rng(devices=[]):
            try:
                with writes:
                    yield writes
            finally:
                now = dict(module.named_buffers())
    finally:
        writes.attributes += changed
        writes.undo()
        writes.buffers += [n for n, b in buffers.items() if now.get(n) is not b or writes.changed(b)]


def _storage(tensor: Tensor) -> int:
    """What tells a plain tensor's memory from others'; 0 for kinds of tensors that have none."""
    if tensor.layout != torch.strided or tensor.is_meta or type(tensor) not in (Tensor, nn.Parameter):
        return 0
    return int(tensor.untyped_storage()._cdata)


def _copied(value: Any, seen: set[int]) -> Any:
    """Dicts, lists and sets with the same elements, as deep as they go."""
    if id(value) in seen:
        return None
    if type(value) in _DICTS:
        seen.add(id(value))
        return {key: (each, _copied(each, seen)) for key, each in value.items()}
    if type(value) is list:
        seen.add(id(value))
        return [(each, _copied(each, seen)) for each in value]
    return set(value) if type(value) is set else None


def _restore(value: Any, before: Any) -> None:
    """Puts a container back to what `_copied` found in it; its elements stay the same objects."""
    if isinstance(before, set):
        if value != before:
            value.clear()
            value.update(before)
    elif isinstance(before, list):
        if len(value) != len(before) or any(a is not b for a, (b, _) in zip(value, before, strict=True)):
            value[:] = [each for each, _ in before]
        for each, inner in before:
            _restore(each, inner)
    elif isinstance(before, dict):
        if list(value) != list(before) or any(value[key] is not each for key, (each, _) in before.items()):
            value.clear()
            value.update({key: each for key, (each, _) in before.items()})
        for each, inner in before.values():
            _restore(each, inner)
