"""Why a feed-forward is not split into experts."""

from __future__ import annotations

from ...share.groups.sites import Site


def unfit(site: Site, experts: int) -> str:
    """A sentence's end; or ""."""
    neurons = site.products[-1][0].columns
    if neurons % experts or neurons == experts:
        return f"{neurons} neurons don't fall into {experts} equal experts: give a number that divides them"
    biases = [linear.bias for use in site.uses for linear in use]
    if any(b is not None and (b.op != "const" or len(b.shape or ()) != 1) for b in biases):
        return "its bias is no vector of its own"
    for parts, body in zip(site.parts, site.body, strict=True):
        if any(node.meta["val"].shape != parts[0].meta["val"].shape for node in body):
            return "its activation moves axes"
    return ""
