"""Kinds of attention put in the place of those that stand there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.fx import Node

from ....ir.fx.graph import propagate, prune
from ....ir.program import Program
from ...manager.contract import Feed
from .kind import Kind
from .site import Site
from .write import seen_at


def unfit(kind: Kind, site: Site) -> str:
    """Why a kind cannot stand at a site; empty where it can."""
    if why := kind.unfit(site):
        return why
    if site.causal and not kind.looks_back:
        return f"it looks back only, and {type(kind).__name__.lower()} attention has no form that does"
    return ""


def tensors(
    program: Program, site: Site, kind: Kind, feeds: Sequence[Feed], seed: int
) -> Mapping[str, Tensor]:
    """A kind's own at a site, from texts where there are any."""
    generator = torch.Generator().manual_seed(seed * 1000 + site.number)
    return dict(kind.own(site, (lambda: seen_at(program, site, feeds)) if feeds else None, generator))


def put(program: Program, pairs: Sequence[tuple[Site, Node]]) -> None:
    """Lets everything read what was written beside the attentions, which go."""
    for site, new in pairs:
        site.end.replace_all_uses_with(new)
    prune(program.graph)
    propagate(program.graph, {reader for _, new in pairs for reader in new.users})
    program.graph.recompile()
