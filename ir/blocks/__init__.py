"""Blocks: what a Transformer is made of, recognised by structure in both dialects."""

from __future__ import annotations

from ..values import View
from .attention import attentions
from .base import Attention, Blocks, FeedForward
from .embedding import embeddings
from .experts import experts
from .feed_forward import feed_forwards
from .linear import linears
from .norm import norms
from .residual import Residuals, place
from .stack import stacks
from .walk import Statics

__all__ = ["Blocks", "recognise"]


def recognise(graph: View) -> Blocks:
    """The blocks of a graph, and everything that looked like one, with reasons.

    Linear in the size of the graph. No block is found twice, and no name is looked at.
    """
    static = Statics()
    linear = linears(graph, static)
    norm, missed = norms(graph, static)
    attention, more = attentions(graph, static, linear, norm)
    missed += more
    feed_forward, more = feed_forwards(graph, linear)
    missed += more
    mixed, more = experts(graph, static, linear)
    missed += more
    routed = {v.name for each in mixed.values() for v in each.body}  # their scores are no attention's
    missed = [miss for miss in missed if miss.node not in routed]
    readers = {v for x in linear.values() for v in x.body} | {v for x in norm.values() for v in x.body}
    embedding = embeddings(graph, static, linear, readers)
    found: list[Attention | FeedForward] = [*attention.values(), *feed_forward.values()]
    taken = {
        v for block in (*found, *mixed.values(), *norm.values(), *embedding.values()) for v in block.body
    }
    residual = Residuals(graph, static, attention, {**feed_forward, **mixed}, linear, norm, taken)
    missed += residual.missed
    order = {value: i for i, value in enumerate(graph.values)}
    found.sort(key=lambda block: order[block.root])
    return Blocks(
        attention=tuple(attention.values()),
        feed_forward=tuple(feed_forward.values()),
        norm=tuple(place(norm, attention, residual.found, embedding).values()),
        embedding=tuple(embedding.values()),
        residual=tuple(residual.found.values()),
        stack=stacks(found),
        linear=tuple(linear.values()),
        experts=tuple(mixed.values()),
        missed=tuple(missed),
    )
