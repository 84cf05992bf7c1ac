"""Norms written as a kernel of their own, where no product comes right before them."""

from __future__ import annotations

from ....ir.blocks.base import Norm
from ....ir.values import sizes
from ..kernels.norm import finished
from .items import Item
from .site import Site


def write_norm(site: Site, norm: Norm) -> Item:
    """The item of a norm."""

    def write() -> None:
        em = site.emitter
        if em.is_tokens(norm.input):
            em.tokens.add(norm.root)
        finish = site.finish(norm.root, norm=norm)
        rows = em.rows(norm.input)
        assert norm.root.shape is not None
        n = sizes(norm.root)[-1]
        results = em.kernel(
            f"norm_{n}", ("norm", n, finish), lambda: finished(n, finish, site.machine),
            [rows, *site.arguments(finish, norm.root, None, norm, n)],
            site.results(finish, em.count(norm.input), n),
        )  # fmt: skip
        site.put(finish, norm.root, results)

    return Item((norm.root,), ((norm.input, "float"),), write)
