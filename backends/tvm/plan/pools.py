"""Sums over the tokens of a sequence: kept tokens are added where they lie, without their padding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tvm import relax

from ....ir.blocks.walk import bare
from ....ir.values import Value, sizes
from ..kernels.pool import pool
from .items import Item
from .site import Site


@dataclass(frozen=True)
class Pool:
    """root: the sum over axis 1 of `tokens` (batch, length, n) times `mask` (batch, length, n or 1)."""

    root: Value
    tokens: Value
    mask: Value


def pools(values: Iterable[Value]) -> list[Pool]:
    """Every sum of masked tokens; which masks they are is for `Masks.keeps` to tell."""
    found = []
    for value in values:
        inner = value.inputs[0] if value.op == "sum" and value.attrs["axes"] == (1,) else None
        if inner is None or inner.op != "mul" or inner.shape is None or len(inner.shape) != 3:
            continue
        for tokens, mask in (inner.inputs, inner.inputs[::-1]):
            if tokens is None or mask is None or tokens.shape != inner.shape:
                continue
            mask = bare(mask)
            if mask.const is None and mask.shape in (inner.shape, (*inner.shape[:2], 1)):
                found.append(Pool(value, tokens, mask))
                break
    return found


def write_pool(site: Site, found: Pool) -> Item:
    """The item of a sum."""

    def write() -> None:
        em = site.emitter
        if not em.is_tokens(found.tokens):
            masked = em.builder.emit(relax.op.multiply(em.whole(found.tokens), em.whole(found.mask)))
            keep = bool(found.root.attrs["keepdim"])
            em.set_whole(found.root, em.builder.emit(relax.op.sum(masked, [1], keep)))
            return
        batch, n = sizes(found.root)[0], sizes(found.root)[-1]
        (sums,) = em.kernel(
            f"pool_{n}", ("pool", n), lambda: pool(n, site.machine),
            [em.starts_input, em.rows(found.tokens)], [((batch, n), "float32")],
        )  # fmt: skip
        em.set_whole(found.root, em.shaped(sums, list(sizes(found.root))))

    return Item((found.root,), ((found.tokens, "float"), (found.mask, "float")), write)
