"""Linear layers of an fx program that read the same values, and the two products that take their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.fx import GraphModule, Node

from ....ir.blocks.base import Linear
from ....ir.blocks.linear import linears
from ....ir.blocks.low_rank import LowRank
from ....ir.blocks.walk import Statics
from ....ir.fx.graph import add_tensor, attribute, call, propagate, prune, replace_tensor
from ....ir.program import Program
from ....ir.values import Value
from ....ir.view import view
from ...common.fx_activations import statistics
from ...common.fx_weights import Matrix, find
from ...manager.contract import Feed
from .tables import like, other_reader, replace_node
from .truncated import Spectrum, about_mean, spectrum

aten = torch.ops.aten
_BYTES = 1 << 29  # of second moments that are held at a time


@dataclass
class Layers:
    """Weights (out, in) of the products with one value, such as those of queries, keys and values; in a model
    whose layers share weights, with one value at each place where they are used.

    sites: for each place, the Linear of every weight, in the order of `matrices`.
    """

    matrices: list[Matrix]
    sites: list[tuple[Linear, ...]]

    @property
    def name(self) -> str:
        return self.matrices[0].name

    @property
    def columns(self) -> int:
        return self.matrices[0].columns

    @property
    def rows(self) -> int:
        """Of all together."""
        return sum(matrix.rows for matrix in self.matrices)

    @property
    def most(self) -> int:
        """The largest rank at which two matrices are smaller than what they stand for."""
        return (self.rows * self.columns - 1) // (self.rows + self.columns)

    @property
    def biased(self) -> bool:
        """Whether every product has a bias, a parameter, that can be moved."""
        biases = [linear.bias for site in self.sites for linear in site]
        return all(b is not None and b.op == "const" and len(b.shape or ()) == 1 for b in biases)

    def weight(self) -> np.ndarray:
        """(rows, columns), float64."""
        parts = [m.tensor.detach().double() for m in self.matrices]
        turned = [m.turned for m in self.matrices]
        return np.concatenate([(p.T if t else p).numpy() for p, t in zip(parts, turned, strict=True)])


def layers(program: Program) -> tuple[list[Layers], list[str]]:
    """Those of a program in graph order, and a sentence for each product's weight that is in none."""
    graph = view(program)
    found = linears(graph, Statics())
    pairs = LowRank(graph, found)
    paired, by_call = set(), dict[Node, Linear]()
    for linear in found.values():
        by_call.update((value.native, linear) for value in linear.body)
        if (first := pairs.before(linear)) is not None:
            paired |= {first.weight.native, linear.weight.native}
    groups: dict[tuple[Value, ...], list[tuple[Matrix, list[Linear]]]] = {}
    notes = []
    for matrix in (matrix for matrix in find(program)[0] if matrix.products):
        calls = [node for node, *_ in matrix.products]
        if matrix.lookups:
            reason = "it is a table of tokens too (factorise-embedding is for those)"
        elif any(axis != -1 for *_, axis in matrix.products):
            reason = "it is a convolution"
        elif paired.intersection(matrix.readers):
            reason = "it is of low rank already"
        else:
            reason = other_reader(matrix, calls, graph)
        if reason:
            notes.append(f"{matrix.name} stays, {reason}")
        else:
            uses = [by_call[node] for node in calls]
            groups.setdefault(tuple(one.input for one in uses), []).append((matrix, uses))
    together = [tuple(zip(*group, strict=True)) for group in groups.values()]
    return [Layers(list(matrices), list(zip(*uses, strict=True))) for matrices, uses in together], notes


def spectra(
    program: Program, found: Sequence[Layers], feeds: Sequence[Feed], damping: float
) -> list[Spectrum]:
    """What each rank of each loses on feeds; without feeds, of the weights alone."""
    result = []
    firsts = [one.matrices[0] for one in found]
    for one, gram in zip(found, grams(program, firsts, feeds), strict=True):
        mean = None
        if gram is not None:
            gram, mean = about_mean(gram) if one.biased else (gram[:-1, :-1], None)
        result.append(spectrum(one.weight(), gram, damping, mean))
    return result


def grams(program: Program, matrices: Sequence[Matrix], feeds: Sequence[Feed]) -> Iterator[np.ndarray | None]:
    """[X 1]^T [X 1] over what each of some matrices multiplies; as many at a time as memory is for. None of
    each without feeds."""
    together = max(1, _BYTES // (8 * max(one.columns for one in matrices) ** 2))
    for start in range(0, len(matrices), together):
        some = matrices[start : start + together]
        seen = statistics(program, some, feeds, constant=True) if feeds else {}
        for one in some:
            yield seen.pop(one.name, (None, None))[0]


def factorised(program: Program, known: Sequence[Spectrum], ranks: Mapping[int, int]) -> Program:
    """A program with some of its layers as two products each.

            q = linear(x, wq, bq); k = linear(x, wk, bk)
        ->  z = linear(x, d); q = linear(z, uq, bq); k = linear(z, uk, bk)

    Args:
        program: it is not changed.
        known: of its layers. ranks: by their number, of those to be factorised.
    """
    work = program.clone()
    found, _ = layers(work)
    replaced: dict[Node, Node] = {}  # what another layer reads may have been another layer's
    for number, rank in ranks.items():
        wide, narrow = known[number].factors(rank)
        shift = known[number].shift(rank)
        moved = _move(work.graph, found[number], shift) if shift is not None else {}
        _write(work.graph, found[number], (wide, narrow), moved, replaced)
    if ranks:
        prune(work.graph)
        propagate(work.graph)
        work.graph.recompile()
    return work


def _move(gm: GraphModule, one: Layers, shift: np.ndarray) -> dict[Node, Node]:
    """Adds to the biases of layers. By what a layer gives: its new bias, where others read the old one."""
    ends = np.cumsum([matrix.rows for matrix in one.matrices])
    moved: dict[Node, Node] = {}
    for number, part in enumerate(np.split(shift, ends[:-1])):
        linears = [site[number] for site in one.sites]
        inside = {value.native for linear in linears for value in linear.body}
        by_bias: dict[Node, list[Linear]] = {}
        for linear in linears:
            assert linear.bias is not None
            by_bias.setdefault(linear.bias.native, []).append(linear)
        for bias, mine in by_bias.items():
            old = attribute(gm, str(bias.target))
            new = like(old, old.detach().double().numpy() + part)
            readers = [node for node in gm.graph.find_nodes(op="get_attr") if node.target == bias.target]
            if readers == [bias] and inside.issuperset(bias.users):
                replace_tensor(gm, bias, new)
            else:
                node = add_tensor(gm, str(bias.target), new, before=bias)
                moved.update((linear.root.native, node) for linear in mine)
    return moved


def _write(
    gm: GraphModule,
    one: Layers,
    factors: tuple[np.ndarray, np.ndarray],
    moved: Mapping[Node, Node],
    replaced: dict[Node, Node],
) -> None:
    """moved: biases by what their layers give. replaced: what took the place of what layers gave."""
    wide, narrow = factors
    order = {node: place for place, node in enumerate(gm.graph.nodes)}
    readers = [min(matrix.readers, key=order.__getitem__) for matrix in one.matrices]
    module = one.name.rpartition(".")[0]
    name = f"{module}.reduction.weight" if module else f"{one.name}_reduction"
    first = min(readers, key=order.__getitem__)
    down = add_tensor(gm, name, like(one.matrices[0].tensor, narrow), before=first)
    ends = np.cumsum([matrix.rows for matrix in one.matrices])
    for matrix, part in zip(one.matrices, np.split(wide, ends[:-1]), strict=True):
        up = like(matrix.tensor, part)
        for reader in matrix.readers:
            replace_tensor(gm, reader, up)
    for site in one.sites:
        roots = [linear.root.native for linear in site]
        x = site[0].input.native
        earliest = min(roots, key=order.__getitem__)
        reduced = call(gm.graph, aten.linear.default, replaced.get(x, x), down, before=earliest)
        for linear, root, reader in zip(site, roots, readers, strict=True):
            bias = moved.get(root) or (linear.bias.native if linear.bias is not None else None)
            replaced[root] = _widen(gm, reduced, reader, bias, root)
            replace_node(root, replaced[root])


def _widen(gm: GraphModule, reduced: Node, weight: Node, bias: Node | None, before: Node) -> Node:
    vector = [bias] if bias is not None and bias.meta["val"].dim() == 1 else []
    made = call(gm.graph, aten.linear.default, reduced, weight, *vector, before=before)
    return made if bias is None or vector else call(gm.graph, aten.add.Tensor, made, bias, before=before)
