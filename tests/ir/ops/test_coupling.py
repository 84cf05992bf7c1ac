"""Coupled axes: cut every member of a group and the model must run, and equal one whose units are zeroed."""

from math import prod

import numpy as np
import onnx_ir as ir
import pytest
import torch
import zoo
from graphwright.ir.capture import capture
from graphwright.ir.fx import graph as fx
from graphwright.ir.onnx.graph import OnnxView
from graphwright.ir.ops.axes import Atom, Concat, Merged, cut, leaves, unify, walk
from graphwright.ir.ops.coupling import Group, groups, groups_of
from graphwright.ir.view import view
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser
from torch import nn

# Zeroing a unit is removing it wherever no norm averages over it.
KINDS = ("heads", "head_dim", "width", "other")


def weights(group: Group) -> list:
    return [m for m in group.members if m.value.op == "const" and m.value.tensor is not None]


def free(graph) -> list[Group]:
    return [g for g in groups(graph) if not g.fixed]


@pytest.mark.parametrize("name", zoo.ARCHITECTURES)
def test_a_pruned_model_equals_the_masked_one(name):
    program, case = zoo.fx_program(name), zoo.ARCHITECTURES[name]
    tensors = case.inputs(2, 11 if case.fixed else 7, seed=3)
    feed = [tensors[spec.name] for spec in program.inputs]
    found = [g for g in free(view(program)) if g.kind in KINDS and weights(g)]
    found = [g for g in found if all(m.map.static for m in g.members)]
    assert found
    for group in found:
        units = list(range(0, group.size, 2))[: max(1, group.size // 2)]
        masked, pruned = program.clone().graph, program.clone().graph
        mask(masked, group, units)
        shrink(pruned, group, units)
        with torch.no_grad():
            expected, got = masked(*feed), pruned(*feed)
        for a, b in zip(expected, got, strict=True):
            torch.testing.assert_close(b, a, atol=2e-5, rtol=2e-5)


def node_of(gm, value):
    return next(n for n in gm.graph.nodes if n.name == value.native.name)


def mask(gm, group, units):
    for (value, axis), positions in group.removed(units).items():
        if value.op == "const" and value.tensor is not None:
            node = node_of(gm, value)
            tensor = fx.attribute(gm, node.target).detach().clone()
            tensor.index_fill_(axis, torch.from_numpy(positions), 0)
            fx.replace_tensor(gm, node, tensor)
    gm.recompile()


SIZES = {
    "view": 1,
    "reshape": 1,
    "expand": 1,
    "new_ones": 1,
    "zeros": 0,
    "full": 0,
}  # where a list of sizes is


def shrink(gm, group, units):
    """Cuts the weights, and the sizes that operators state."""
    removed = group.removed(units)
    for node in gm.graph.nodes:  # an unstated scale would follow the head size
        if getattr(node.target, "_opname", "") == "scaled_dot_product_attention" and not node.kwargs.get(
            "scale"
        ):
            node.update_kwarg("scale", node.args[0].meta["val"].shape[-1] ** -0.5)
    for (value, axis), positions in removed.items():
        if isinstance(value.native, tuple):
            continue
        node = node_of(gm, value)
        name = getattr(node.target, "_opname", "")
        if value.op == "const":
            tensor = fx.attribute(gm, node.target).detach()
            kept = np.setdiff1d(np.arange(tensor.shape[axis]), positions)
            fx.replace_tensor(gm, node, tensor.index_select(axis, torch.from_numpy(kept)))
        elif name in SIZES:
            sizes = list(node.args[SIZES[name]])
            if isinstance(sizes[axis], int) and sizes[axis] > 0:
                sizes[axis] = value.shape[axis] - len(positions)
            node.update_arg(SIZES[name], sizes)
        elif name == "unflatten":
            sizes = list(value.shape[-len(node.args[2]) :])
            sizes[axis - len(value.shape)] -= len(positions)
            node.update_arg(2, sizes)
        elif value.op == "split" and axis == value.attrs["axis"] % len(value.shape):
            whole = removed[value.inputs[0], axis]
            edges = np.cumsum((0, *value.attrs["sizes"]))
            gone = np.histogram(whole, bins=edges)[0]
            source = node.args[0]
            source.target = torch.ops.aten.split_with_sizes.default
            sizes = [int(size - cut) for size, cut in zip(value.attrs["sizes"], gone, strict=True)]
            source.args = (source.args[0], sizes, axis)
        elif value.op == "slice" and axis == value.attrs["axis"]:
            whole = removed[value.inputs[0], axis]
            start, end = (b - int((whole < b).sum()) for b in (value.attrs["start"], value.attrs["end"]))
            node.args = (node.args[0], axis, start, end)
    gm.recompile()


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "qwen3", "mpnet", "squeezebert", "modernbert"])
def test_both_dialects_find_the_same_groups(name):
    found = []
    for program in (zoo.fx_program(name), zoo.onnx_program(name)):
        sizes = []
        for group in free(view(program)):
            if weights(group):
                cells = sum(
                    prod(m.value.shape) // m.value.shape[m.axis] * m.map.inner for m in weights(group)
                )
                sizes.append((group.size, group.kind, cells))
        found.append(sorted(sizes))
    assert found[0] == found[1]


def test_grouped_queries_go_with_their_key_value_head():
    graph = view(zoo.fx_program("llama"))
    config = zoo.ARCHITECTURES["llama"].build().config
    heads, kept, size = config.num_attention_heads, config.num_key_value_heads, config.hidden_size
    width = size // heads
    found = groups(graph)
    query = next(v for v in graph if v.op == "const" and v.name.endswith("q_proj_weight"))
    key = next(v for v in graph if v.op == "const" and v.name.endswith("k_proj_weight"))
    (group,) = [g for g in groups_of(found, key, 0) if g.size == kept and g.kind == "heads"]
    assert list(group.removed([1])[key, 0]) == list(range(width, 2 * width))
    repeat = heads // kept
    assert list(group.removed([1])[query, 0]) == list(range(repeat * width, 2 * repeat * width))


def test_a_fused_projection_loses_a_heads_query_key_and_value():
    graph = view(zoo.fx_program("gpt2"))
    config = zoo.ARCHITECTURES["gpt2"].build().config
    size, width = config.n_embd, config.n_embd // config.n_head
    fused = next(v for v in graph if v.op == "const" and v.name.endswith("c_attn_weight"))
    (group,) = [g for g in groups_of(groups(graph), fused, 1) if g.kind == "heads"]
    expected = [part * size + 2 * width + i for part in range(3) for i in range(width)]
    assert list(group.removed([2])[fused, 1]) == expected


def test_interfaces_and_vocabularies_are_fixed_with_a_reason():
    found = groups(view(zoo.fx_program("bert")))
    hidden = next(g for g in found if g.kind == "hidden")
    words = next(g for g in found if g.kind == "vocabulary")
    assert "output" in hidden.fixed
    assert "looks it up by index" in words.fixed


def onnx_view(body, weights="", signature="(float[batch,length,32] x) => (float[] y)"):
    text = f'<ir_version: 8, opset_import: ["" : 18]> main {signature} {weights} {{ {body} }}'
    return OnnxView(ir.from_proto(parser.parse_model(text)))


class Rolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(32, 8), nn.Linear(8, 32)

    def forward(self, x):
        return self.down(self.up(torch.roll(x * 2, 1, -1)))


def test_what_an_unknown_operator_touches_is_fixed_and_nothing_else():
    graph = view(capture(Rolled(), inputs={"x": torch.rand(2, 3, 32)}))
    found = groups(graph)
    weight = next(v for v in graph if v.op == "const" and v.shape == (8, 32))
    (inner,), (shifted,) = (groups_of(found, weight, axis) for axis in (0, 1))
    assert not inner.fixed
    assert shifted.fixed.startswith("which axes the operator aten.roll.default (roll")


@pytest.mark.parametrize("keep", [0, 1])
def test_the_length_of_a_vector_couples_what_it_is_not_taken_over(keep):
    graph = onnx_view(f"axes = Constant<value_ints=[1]>() y = ReduceL2<keepdims={keep}>(x, axes)")
    found = {(m.value.name, m.axis) for g in groups(graph) for m in g.members if g.size == 32}
    assert found == {("x", 2), ("y", 1 + keep)}


def test_a_weight_used_twice_couples_both_places():
    zeros = ",".join("0" * 64)
    graph = onnx_view(
        "a = MatMul(x, w) b = Relu(a) t = Transpose<perm=[1,0]>(w) y = MatMul(b, t)",
        f"<float[32,2] w = {{{zeros}}}>",
    )
    (group,) = [g for g in groups(graph) if not g.fixed]
    assert [(m.value.name, m.axis) for m in weights(group)] == [("w", 1)]
    assert group.size == 2


@pytest.mark.parametrize(
    "body",
    [
        "i = Constant<value_ints=[0,1,2,3,4,5,6,7]>() g = Gather<axis=2>(a, i) y = ReduceSum<keepdims=0>(g)",
        "s = Constant<value_int=3>() g = Gather<axis=2>(a, s) y = ReduceSum<keepdims=0>(g)",
        "g = Constant<value_ints=[-1, 3]>() r = Reshape(a, g) y = ReduceSum<keepdims=0>(r)",
    ],
)
def test_what_is_read_by_position_is_fixed(body):
    zeros = ",".join("0" * 256)
    signature = "(float[4,8,32] x) => (float[] y)"
    graph = onnx_view(f"a = MatMul(x, w) {body}", f"<float[32,8] w = {{{zeros}}}>", signature)
    weight = next(v for v in graph if v.name == "w")
    assert all(group.fixed for group in groups_of(groups(graph), weight, 1))


TERMS = st.recursive(
    st.integers(1, 4).map(Atom),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([Merged, Concat]).map(lambda kind: kind(tuple(parts)))
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(TERMS)
def test_the_places_of_an_atom_are_its_share_of_the_axis(term):
    """Reference: build the axis element by element, labelled with (atom, unit) at every level."""

    def elements(term):
        term = walk(term)
        if isinstance(term, Atom):
            return [{id(term): u} for u in range(term.size)]
        if isinstance(term, Concat):
            return [e for part in term.parts for e in elements(part)]
        rows = [{}]
        for part in term.parts:
            rows = [{**row, **e} for row in rows for e in elements(part)]
        return rows

    axis = elements(term)
    assert len(axis) == term.size
    for atom, where in leaves(term):
        for unit in range(atom.size):
            positions = [i for i, labels in enumerate(axis) if labels.get(id(atom)) == unit]
            assert list(where.indices([unit])) == positions


@settings(max_examples=60, deadline=None)
@given(TERMS, st.data())
def test_unified_axes_have_the_same_units_at_the_same_places_or_are_fixed(term, data):
    parts = data.draw(st.sampled_from(["atom", "halves", "product"]))
    other = Atom(term.size)
    if parts == "halves" and term.size > 1:
        cut(other, [1, term.size - 1])
    elif parts == "product":
        inner = data.draw(st.sampled_from([d for d in range(1, term.size + 1) if term.size % d == 0]))
        other = Merged((Atom(term.size // inner), Atom(inner)))

    unify(term, other)

    def places(term):
        found = {}
        for atom, where in leaves(term):
            if atom.size > 1:
                for unit in range(atom.size):
                    found.setdefault((id(atom), unit), set()).update(where.indices([unit]))
        return found

    everything = [atom for atom, _ in (*leaves(term), *leaves(other)) if atom.size > 1]
    assert places(term) == places(other) or all(atom.fixed for atom in everything)
