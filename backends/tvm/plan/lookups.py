"""Embeddings written as one kernel: tables looked up, added, and the norm that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....ir.blocks.base import Blocks, Norm
from ....ir.blocks.walk import bare, users
from ....ir.ops.evaluate import scalar
from ....ir.values import Value, View, sizes
from ..kernels.embedding import Embedding, embedding
from .items import Item
from .site import Site


@dataclass(frozen=True)
class Lookup:
    """tables: (float table, ids). places: [length, features], what a position adds: its own embedding, that
    of token types where they are all one; None for nothing. norm: what follows, where nobody reads the sum.
    """

    root: Value
    tables: tuple[tuple[Value, Value], ...]
    places: np.ndarray | None
    norm: Norm | None
    total: Value


def lookups(view: View, blocks: Blocks, shape: tuple[int, int]) -> list[Lookup]:
    """The embeddings of a graph whose ids have this (batch, length)."""
    found = []
    for block in blocks.embedding:
        lookup = _lookup(_unscaled(block.root), blocks, shape, set(view.outputs))
        if lookup is not None:
            found.append(lookup)
    return found


def _lookup(root: Value, blocks: Blocks, shape: tuple[int, int], outputs: set[Value]) -> Lookup | None:
    tables: list[tuple[Value, Value]] = []
    places: list[np.ndarray] = []
    width = sizes(root)[-1] if root.shape else 0
    stack = [root]
    while stack:
        value = bare(stack.pop())
        if value.op == "add":
            stack += [v for v in reversed(value.inputs) if v is not None]
        elif value.op == "embedding" and value.inputs[0] is not None and value.inputs[1] is not None:
            table, ids = value.inputs[0], value.inputs[1]
            if ids.shape != shape or table.op != "const" or table.dtype != "float32":
                return None
            tables.append((table, ids))
        elif (rows := _rows(value, shape, width)) is not None:
            places.append(rows)
        else:
            return None
    if not tables:
        return None
    norm = next((n for n in blocks.norm if bare(n.input) == root), None)
    if norm is not None and (root in outputs or any(user not in norm.body for user in users(root))):
        norm = None
    added = np.stack(places).sum(0) if places else None
    return Lookup(norm.root if norm else root, tuple(tables), added, norm, root)


def _unscaled(root: Value) -> Value:
    """The sum under a factor, which is an operator of rows: Gemma's is the root of the hidden size."""
    while root.op == "mul":
        others = [v for v in root.inputs if v is not None and scalar(v) is None]
        if len(others) != 1:
            return root
        root = bare(others[0])
    return root


def _rows(value: Value, shape: tuple[int, int], width: int) -> np.ndarray | None:
    """[length, features] of a constant that is the same for every sequence; None of anything else."""
    if value.op != "const" or value.dtype != "float32" or value.const is None:
        return None
    try:
        rows = np.broadcast_to(value.const, (*shape, width))
    except ValueError:
        return None
    return np.array(rows[0]) if (rows == rows[:1]).all() else None


def write_lookup(site: Site, lookup: Lookup) -> Item:
    """The item of an embedding."""

    def write() -> None:
        em = site.emitter
        batch, length, n = sizes(lookup.root)
        if em.packed:
            em.tokens.add(lookup.root)
        finish = site.finish(lookup.root, norm=lookup.norm)
        places = lookup.places
        heights = tuple(sizes(table)[0] for table, _ in lookup.tables)
        spec = Embedding(heights, 0 if places is None else len(places), n, finish)
        every = np.arange(batch * length, dtype=np.int32)
        arguments = [em.rows_input if em.packed else em.constant(every)]
        for table, ids in lookup.tables:
            arguments += [em.shaped(em.whole(ids), [batch * length]), em.whole(table)]
        arguments += [] if places is None else [em.constant(places)]
        arguments += site.arguments(finish, lookup.root, None, lookup.norm, n)
        results = em.kernel(
            f"embedding_{n}", ("embedding", spec), lambda: embedding(spec, site.machine), arguments,
            site.results(finish, em.kept if em.packed else batch * length, n),
        )  # fmt: skip
        site.put(finish, lookup.root, results)

    return Item((lookup.root,), tuple((ids, "float") for _, ids in lookup.tables), write)
