"""Passes in the bodies of If and Loop, against the file as it came in plain ONNX Runtime."""

from dataclasses import dataclass
from typing import ClassVar

import merged
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from graphwright.backends.target import named
from graphwright.ir.agreement import smallest_cosine
from graphwright.ir.execute import execute
from graphwright.ir.footprint import weight_bytes
from graphwright.ir.inputs.probe import probes
from graphwright.ir.sources.onnx_file import from_onnx
from graphwright.passes.manager.contract import Context, Exact, Pass, Result
from graphwright.passes.manager.pipeline import Pipeline


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, model in {"merged": merged.merged(), "layers": merged.layers(3)}.items():
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        program = from_onnx(path)
        feeds = probes(program, 0)
        session = onnxruntime.InferenceSession(str(path), options)
        found[name] = program, feeds, [session.run(["logits"], feed)[0] for feed in feeds]
    return found


def run(program, feeds, text):
    target = named(
        "x86-64-avx2"
    )  # what is made for it is right on newer processors too, not the other way round
    context = Context(target=target, calibration=feeds, chosen={})
    found = Pipeline.parse(text).run(program, context)
    assert found.ok, [step.error for step in found.steps]
    return found


def operators(program):
    return [node.op_type for node in ir.traversal.RecursiveGraphIterator(program.graph.graph)]


def lowest(program, feeds, wanted):
    found = execute(program, feeds)
    return min(smallest_cosine(w, f["logits"]) for w, f in zip(wanted, found, strict=True))


@pytest.mark.parametrize("name", ["merged", "layers"])
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_weights_that_bodies_share_are_packed_once(models, name, method):
    program, feeds, wanted = models[name]
    packed = run(program, feeds, f"fold-constants,quantize-weights{{bits=8,method={method}}}").program
    names = set(packed.graph.graph.initializers)
    held = merged.weights() if name == "merged" else ("table", "up", "down", "head")
    matrices = {each for each in held if each not in ("norm", "shift")}
    assert {f"{each}.codes" for each in matrices} == {each for each in names if "codes" in each}
    assert names.isdisjoint(matrices)
    assert weight_bytes(packed) < 0.45 * weight_bytes(program)
    assert lowest(packed, feeds, wanted) > 0.999


def test_both_branches_compute_in_int8_with_the_same_weights(models):
    program, feeds, wanted = models["merged"]
    found = run(program, feeds, "fold-constants,quantize-dynamic{min_cosine=0.99}")
    assert found.steps[-1].statistics["products in int8"] == 14
    assert sorted(n for n in found.program.graph.graph.initializers if n.endswith(".int8")) == sorted(
        f"{each}.int8" for each in ("query", "key", "value", "output", "up", "down", "head")
    )
    assert lowest(found.program, feeds, wanted) > 0.99


def test_a_loop_computes_in_int8(models):
    program, feeds, wanted = models["layers"]
    found = run(program, feeds, "quantize-dynamic{min_cosine=0.99}")
    assert found.steps[-1].statistics["products in int8"] == 3
    assert lowest(found.program, feeds, wanted) > 0.99


def test_exact_passes_keep_what_bodies_compute(models):
    for program, feeds, wanted in models.values():
        text = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
        found = run(program, feeds, text).program
        assert len(operators(found)) < 0.7 * len(operators(program))
        for a, b in zip(execute(found, feeds), wanted, strict=True):
            np.testing.assert_allclose(a["logits"], b, rtol=1e-5, atol=1e-5)


def test_what_only_one_branch_could_merge_is_not_stored_twice(models):
    program, feeds, _ = models["merged"]
    found = run(program, feeds, "fold-constants,fuse-qkv")
    assert found.steps[-1].status == "no change"
    assert found.steps[-1].notes == (
        "2 attentions and 2 feed-forwards in 2 bodies of If: left alone, what they have in common would be "
        "stored twice",
    )


def test_a_pass_for_whole_graphs_says_what_it_leaves(models):
    program, feeds, _ = models["merged"]
    notes = run(program, feeds, "remove-padding").steps[-1].notes
    assert notes[-1] == (
        "2 attentions and 2 feed-forwards in 2 bodies of If: left alone, 'remove-padding' looks at a graph "
        "as a whole"
    )


def test_a_branch_that_nothing_enters_is_left_as_it_is(models):
    program, feeds, _ = models["merged"]
    never = Pipeline.parse("quantize-weights{bits=8}")
    full = [feed for feed in feeds if feed["use_cache_branch"].all()]

    from graphwright.passes.manager import bodies

    original, bodies.probes = bodies.probes, lambda program, seed: full
    try:
        step = never.run(program, Context(target=named("x86-64-vnni"))).steps[0]
    finally:
        bodies.probes = original
    assert step.notes == ("in the else_branch of If 'optimum::if': left as it is: no probe enters it",)
    assert step.statistics["products of packed weights"] == 7


@dataclass(frozen=True)
class Doubles(Pass):
    """Adds what it says it doesn't: the first product's result to itself."""

    name: ClassVar[str] = "doubles"
    source: ClassVar = "onnx"
    target: ClassVar = "onnx"
    effect: ClassVar = Exact(1e-4)

    def run(self, program, context):
        graph = program.graph.graph
        product = next((node for node in graph if node.op_type == "MatMul"), None)
        if product is None:
            return Result(program, False)
        old = product.outputs[0]
        node = ir.node("Add", [old, old], name="twice")
        node.outputs[0].name = "twice"
        graph.insert_after(product, node)
        old.replace_all_uses_with(node.outputs[0])
        for place in (0, 1):
            node.replace_input_with(place, old)
        return Result(program, True)


@pytest.mark.parametrize("name", ["merged", "layers"])
def test_a_pass_that_breaks_a_body_is_caught(models, name):
    program = models[name][0]
    step = Pipeline([Doubles()]).run(program).steps[0]
    assert step.status == "rolled back"
    assert "output 'logits' on probe" in str(step.error)
