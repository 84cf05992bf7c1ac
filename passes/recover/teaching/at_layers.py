"""Terms at layers that learn from layers: their states, their attention, their matrices."""

from __future__ import annotations

from dataclasses import dataclass

from ....ir.blocks.stream import StreamLayer
from ....ir.errors import PassError
from ....ir.program import Program
from ....ir.values import Dim, Value
from .depth import attention_of
from .losses.attention import Maps, Relations, map_nodes, native
from .losses.base import Term
from .losses.matrices import matrices
from .losses.outputs import hidden
from .losses.projections import Layers, Projections, width
from .losses.readings import Reading


@dataclass(frozen=True)
class Weights:
    """Of the terms, each over all layers."""

    hidden: float
    attention: float
    values: float
    matrices: float


def at_layers(
    programs: tuple[Program, Program],
    layers: Layers,
    weights: Weights,
    shared: Projections,
    seed: int,
    reading: Reading,
) -> tuple[list[Term], list[str]]:
    """Terms in the order of the layers, and a sentence for what is left out.

    Args:
        programs, layers: the teacher's before the student's.
        reading: how both read a text. By two tokenizers, attention is not compared.
        shared: matrices between their widths; each layer has its own where there is none.

    Raises:
        PassError: layers whose matrices are to be compared are of other blocks, or no matrix corresponds.
    """
    found: list[Term] = []
    notes: list[str] = []
    left = alike = 0
    attention = bool(weights.attention or weights.values)
    if attention and not reading.alike:
        notes.append("attention is not compared: teacher and student read other tokens of a text")
    for place, pair in enumerate(layers):
        fewer = _places(pair[0].exit) != _places(pair[1].exit)
        if fewer:
            notes.append(f"states are not compared at {pair[1].exit.name}: it has other tokens")
        if weights.hidden and not fewer:
            taught, learns = (layer.exit.native for layer in pair)
            found.append(
                hidden(programs[1], weights.hidden / len(layers), place, taught, learns, seed, shared)
            )
        widths = width(pair[0]), width(pair[1])
        if weights.matrices and widths in shared:
            term, missed = matrices(programs, pair, weights.matrices / len(layers), place, shared[widths])
            found += [term] if term is not None else []
            left, alike = left + missed, alike + (term is not None)
        if attention and reading.alike:
            terms, missing = _attention(programs, pair, weights, (place, len(layers)))
            found, notes = found + terms, notes + missing
    if weights.matrices and not alike:
        raise PassError(
            "no matrix of the student is the teacher's in another width: give matrices a weight of 0"
        )
    if left:
        notes.append(
            f"matrices that have none like them in the teacher and are left to the other terms: {left}"
        )
    return found, notes


def _attention(
    programs: tuple[Program, Program],
    layers: tuple[StreamLayer, StreamLayer],
    weights: Weights,
    place: tuple[int, int],
) -> tuple[list[Term], list[str]]:
    """The terms at the attention of one of so many pairs of layers."""
    number, count = place
    one, other = (attention_of(layer) for layer in layers)
    if one is None or other is None:
        said = f"attention is not compared at {layers[1].exit.name}: a layer or its teacher has none left"
        return [], [said]
    if _places(one.context) != _places(other.context):
        return [], [f"attention is not compared at {layers[1].exit.name}: it has other tokens"]
    found: list[Term] = []
    nodes = map_nodes(one), map_nodes(other)
    if weights.attention and nodes[0] is not None and nodes[1] is not None:
        found.append(Maps(weights.attention / count, number, nodes[0], nodes[1], {}, programs[1], one, other))
    ends = native(one.value), native(other.value)
    if weights.values and ends[0] is not None and ends[1] is not None:
        found.append(
            Relations(weights.values / count, number, [ends[0]], [ends[1]], {}, programs[1], one, other)
        )
    return found, []


def _places(state: Value) -> tuple[Dim, ...]:
    """Of the vectors of a state: rows and tokens."""
    return (state.shape or ())[:-1]
