"""Embeddings written as one kernel: tables looked up, added, and the norm that follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....ir.blocks.base import Blocks, Norm
from ....ir.blocks.walk import bare, users
from ....ir.view import Value, View
from ..kernels.embedding import Embedding, embedding
from .items import Item
from .site import Site


@dataclass(frozen=True)
class Lookup:
    """tables: (float table, ids). places: a row for each position, or one row; None for no such table. norm:
    what follows, where nobody reads the sum itself."""

    root: Value
    tables: tuple[tuple[Value, Value], ...]
    places: Value | None
    norm: Norm | None
    total: Value


def lookups(view: View, blocks: Blocks, shape: tuple[int, int]) -> list[Lookup]:
    """The embeddings of a graph whose ids have this (batch, length)."""
    found = []
    for block in blocks.embedding:
        lookup = _lookup(block.root, blocks, shape, set(view.outputs))
        if lookup is not None:
            found.append(lookup)
    return found


def _lookup(root: Value, blocks: Blocks, shape: tuple[int, int], outputs: set[Value]) -> Lookup | None:
    tables: list[tuple[Value, Value]] = []
    places: list[Value] = []
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
        elif value.op == "const" and value.dtype == "float32" and value.shape:
            places.append(value)
        else:
            return None
    width = root.shape[-1] if root.shape else 0
    for place in places:
        sizes = [d for d in place.shape or () if d != 1]
        if sizes not in ([shape[1], width], [width]):
            return None
    if not tables or len(places) > 1:
        return None
    norm = next((n for n in blocks.norm if bare(n.input) == root), None)
    if norm is not None and (root in outputs or any(user not in norm.body for user in users(root))):
        norm = None
    return Lookup(norm.root if norm else root, tuple(tables), places[0] if places else None, norm, root)


def write_lookup(site: Site, lookup: Lookup) -> Item:
    """The item of an embedding."""

    def write() -> None:
        em = site.emitter
        assert lookup.root.shape is not None
        batch, length, n = (int(d) for d in lookup.root.shape)
        if em.packed:
            em.tokens.add(lookup.root)
        finish = site.finish(lookup.root, norm=lookup.norm)
        places = lookup.places.const.reshape(-1, n) if lookup.places is not None else None
        sizes = tuple(int(table.shape[0]) for table, _ in lookup.tables)
        spec = Embedding(sizes, 0 if places is None else len(places), n, finish)
        every = np.arange(batch * length, dtype=np.int32)
        arguments = [em.rows_input if em.packed else em.constant(every)]
        for table, ids in lookup.tables:
            arguments += [em.shaped(em.whole(ids), [batch * length]), em.whole(table)]
        arguments += [] if places is None else [em.constant(places.astype(np.float32))]
        arguments += site.arguments(finish, lookup.root, None, lookup.norm, n)
        results = em.kernel(
            f"embedding_{n}", ("embedding", spec), lambda: embedding(spec, site.machine), arguments,
            site.results(finish, em.kept if em.packed else batch * length, n),
        )  # fmt: skip
        site.put(finish, lookup.root, results)

    return Item((lookup.root,), tuple((ids, "float") for _, ids in lookup.tables), write)
