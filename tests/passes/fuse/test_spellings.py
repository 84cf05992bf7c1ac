"""Every fusion on one layer in very many spellings: it leaves a graph that runs and gives what it gave, or
the graph as it was."""

import numpy as np
from graphwright.ir.execute import execute
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.manager.wellformed import well_formed
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from spellings import MASK_SHAPES, Layer, feeds, layer_program

FIRST = "fold-constants,eliminate-identities,eliminate-common-subexpressions,eliminate-dead-code"
FUSIONS = (
    "simplify-mask", "fuse-layer-norm", "fuse-bias-gelu", "fuse-rotary", "fuse-qkv", "fuse-attention",
    "fuse-attention{kernel=multi-head}", "keep-residual-sum", "fuse-skip-layer-norm", "fuse-embedding-norm",
    "remove-padding",
)  # fmt: skip
TOLERANCE = {"float32": 2e-5, "float16": 2e-2}

DTYPES = ("bool", "int64", "int32", "float32", "float16", "float64")  # of a mask

layouts = st.sampled_from(["heads", "heads", "batch", "none"])


@st.composite
def layers(draw):
    layout = draw(layouts)
    heads = 1 if layout == "none" else draw(st.integers(1, 4))
    kv = draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0]))
    turned = draw(st.sampled_from(["", "", "halves", "pairs"])) if layout != "none" else ""
    size = draw(st.sampled_from([2, 4, 6] if turned else [1, 2, 3, 4, 8]))
    shapes = [s for s in MASK_SHAPES if _fits(s, layout, heads)]
    mask = draw(st.sampled_from([None, *shapes]))
    return Layer(
        heads=heads, kv=kv, size=size, value_size=draw(st.sampled_from([size, size, 5])), layout=layout,
        scale=draw(st.sampled_from(["scores", "query", "both", "no"])),
        biases=draw(st.tuples(*[st.booleans()] * 3)), bias_rank=draw(st.integers(1, 3)),
        mask_shape=mask, mask_dtype=draw(st.sampled_from(DTYPES)),
        masking=draw(st.sampled_from(["large", "infinite", "smallest", "double", "over", "added"])),
        causal=draw(st.sampled_from(["", "", "slice", "where"])), guarded=draw(st.booleans()), turned=turned,
        batched=draw(st.booleans()), late=draw(st.booleans()),
        repeat=draw(st.sampled_from(["expand", "broadcast", "gather", "tile"])),
        norm=draw(st.sampled_from(["operator", "layer_norm", "rms_norm"])),
        affine=draw(st.tuples(st.booleans(), st.booleans())),
        act=draw(st.sampled_from(["erf", "tanh", "operator"])),
        batch=draw(st.sampled_from(["batch", "batch", 1, 2])),
        length=draw(st.sampled_from(["length", "length", 1, 4])),
        dtype=draw(st.sampled_from(["float32"] * 5 + ["float16"])),
        embedded=draw(st.sampled_from(["", "", "slice", "range"])), opset=draw(st.sampled_from([20, 23])),
    )  # fmt: skip


def _fits(shape: str, layout: str, heads: int) -> bool:
    """Whether a mask of these axes broadcasts to the scores of a layout."""
    if layout == "heads":
        return len(shape) in (2, 3, 4) and shape not in ("b1l",)
    if layout == "none":
        return shape in ("b1l", "ll", "bl", "1l")
    return shape in ("ll", "1l") or (heads == 1 and shape in ("b1l", "bl"))


def check(layer):
    program = layer_program(layer)
    inputs = feeds(program)
    run = Pipeline.parse(FIRST).run(program, verify=False)
    program = run.program
    for name in FUSIONS:
        (pass_,) = Pipeline.parse(name).passes
        before = program.fingerprint()
        result = pass_.run(program.clone(), Context())
        if not result.modified:
            assert result.program.fingerprint() == before, name
            continue
        event(name)
        well_formed(result.program)
        if "multi-head" in name and layer.opset == 23:
            continue
        expected, found = execute(program, inputs), execute(result.program, inputs)
        for feed, a, b in zip(inputs, expected, found, strict=True):
            a, b = a["y"], b["y"]
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            np.testing.assert_array_equal(np.isnan(a), np.isnan(b), err_msg=name)
            kept = (
                feed["mask"] != 0 if name == "remove-padding" and feed["mask"].shape == a.shape[:2] else ...
            )
            np.testing.assert_allclose(
                b[kept], a[kept], atol=TOLERANCE[layer.dtype], rtol=TOLERANCE[layer.dtype], err_msg=name
            )
        if "multi-head" not in name:
            program = result.program


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(layers())
@example(Layer(heads=1, kv=1, layout="none", mask_shape="b1l", masking="added"))
@example(Layer(heads=1, kv=1, layout="none", mask_shape="bl", masking="over"))
def test_a_fusion_leaves_a_graph_that_gives_what_it_gave(layer):
    check(layer)


def test_heads_that_are_turned_after_they_were_repeated_are_fused_too():
    program = layer_program(Layer(heads=4, kv=2, turned="halves", late=True))
    run = Pipeline.parse(f"{FIRST},fuse-rotary,fuse-attention").run(program)
    assert run.ok, [str(step.error) for step in run.steps]
    assert run.steps[-1].statistics == {"attentions fused": "1 of 1"}, run.steps[-1].notes


def test_one_head_of_keys_that_the_product_repeats_stays_one():
    """Multi-query attention (Shazeer, 2019), as Falcon has it: one head is no operand of all of them."""
    program = layer_program(Layer(heads=4, kv=1, repeat="broadcast", turned="halves"))
    run = Pipeline.parse(f"{FIRST},fuse-rotary,fuse-attention").run(program)
    assert run.ok, [str(step.error) for step in run.steps]
    assert run.steps[-2].statistics == {"rotations fused": "2 of 2"}, run.steps[-2].notes
    assert run.steps[-1].statistics == {"attentions fused": "1 of 1"}, run.steps[-1].notes
    apart = Pipeline.parse(f"{FIRST},fuse-attention{{kernel=multi-head}}").run(program)
    assert apart.ok
    assert "1 heads of keys serve 4 of queries" in apart.steps[-1].notes[0]
