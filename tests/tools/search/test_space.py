"""The space is what the registry declares for a program; a file narrows it; what can't be is no pipeline."""

from dataclasses import fields

import pytest
import zoo
from graphwright.ir.errors import ConfigError, PipelineError
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.registry import names, resolve
from graphwright.passes.manager.text import checked
from graphwright.passes.manager.varying import Between, Each
from graphwright.tools.search.narrowed import narrowed, shown
from graphwright.tools.search.slots import FX, ONNX, RUNS_ON, SLOTS
from graphwright.tools.search.space import space
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = Context(
    target=object(), calibration=[{}], original=object(), score=lambda p: 0.0, measure=lambda *a, **k: {}
)


@pytest.fixture(scope="module")
def whole():
    return space(zoo.fx_program("bert"), ("onnxruntime", "tvm"), ALL)


def first(one):
    return one[0] if isinstance(one, tuple) else one.low


def values_of(one):
    return one if isinstance(one, tuple) else (one.low, one.high)


def plain(whole, **chosen):
    return {name: first(one) for name, one in whole.dimensions.items()} | {
        name.replace("__", ".").replace("_", "-"): value for name, value in chosen.items()
    }


def drawn(data, whole):
    def one(known):
        if isinstance(known, tuple):
            return st.sampled_from(known)
        if known.whole:
            step = known.step or 1
            return st.integers(0, (known.high - known.low) // step).map(lambda n: known.low + n * step)
        return st.floats(known.low, known.high)

    return {name: data.draw(one(known), label=name) for name, known in whole.dimensions.items()}


@pytest.mark.parametrize("name", names())
def test_a_pass_stands_in_a_slot_if_it_varies_and_its_ranges_are_its_options(name):
    pass_type = resolve(name)
    ranges = pass_type.varying(zoo.fx_program("bert"))
    slots = [slot for slot, passes in SLOTS.items() if name in passes]
    assert len(slots) == bool(ranges)
    options = {field.name for field in fields(pass_type)}
    assert set(ranges) <= options
    for option, one in ranges.items():
        rows = [one.ranges] if isinstance(one, Each) else [values_of(one)]
        for value in rows[0] if not isinstance(one, Each) else [tuple(map(first, one.ranges))]:
            checked(pass_type, {option: value})
    if slots:
        assert pass_type.source in (None, "fx" if slots[0] in FX else "onnx")


def test_dimensions_are_slots_options_and_entries(whole):
    assert whole.dimensions["structure"] == ("none", "prune-layers", "prune-structure", "prune-to-latency")
    assert whole.dimensions["prune-layers.keep"] == Between(1, 1)
    assert whole.dimensions["prune-structure.keep.1"] == (0, 14, 29, 43, 58, 72)
    assert whole.dimensions["runtime"] == ("onnxruntime", "tvm")


def test_an_onnx_model_has_what_works_on_it(whole):
    found = space(zoo.onnx_program("bert"), ("onnxruntime",), ALL)
    assert not set(FX) & set(found.dimensions)
    assert "compute-bfloat16" not in found.dimensions["bits"]
    assert str(found.pipeline(plain(found))).startswith("fold-constants")


def test_passes_whose_needs_nobody_meets_are_left_out():
    found = space(zoo.fx_program("bert"), ("onnxruntime",), Context())
    assert "recovery" not in found.dimensions
    assert found.dimensions["structure"] == ("none", "prune-layers")
    assert not any(name.startswith("prune-structure") for name in found.dimensions)


def test_a_candidate_stands_in_the_order_of_the_slots(whole):
    choices = plain(
        whole, structure="prune-structure", recovery="distill", bits="quantize-static", distill__steps=200
    )
    text = str(whole.pipeline(choices))
    assert text.startswith("prune-structure{keep=(0,0,0,0)},distill{steps=200},to-onnx,fold-constants,")
    assert text.endswith("remove-padding,quantize-static{min_cosine=0.0}")
    assert "fuse-qkv" not in text  # as in the presets: int8 products share what they read
    assert "fuse-qkv" in str(whole.pipeline(plain(whole)))


def test_a_model_that_was_not_changed_is_not_taught(whole):
    assert "distill" not in str(whole.pipeline(plain(whole, recovery="distill")))


def test_a_runtime_gets_its_own_form_of_a_pass_and_none_that_it_has_no_kernels_for(whole):
    choices = plain(whole, bits="quantize-dynamic", runtime="tvm")
    assert str(whole.pipeline(choices)).endswith("quantize-dynamic{min_cosine=0.0,scale=tensor}")
    with pytest.raises(PipelineError, match="'quantize-static' is of no use on tvm"):
        whole.pipeline(plain(whole, bits="quantize-static", runtime="tvm"))


@settings(deadline=None)
@given(st.data())
def test_every_point_is_a_pipeline_that_can_be_or_is_forbidden(whole, data):
    choices = drawn(data, whole)
    if choices["runtime"] not in RUNS_ON.get(choices["bits"], (choices["runtime"],)):
        with pytest.raises(PipelineError, match="is of no use on"):
            whole.pipeline(choices)
        return
    pipeline = whole.pipeline(choices)
    assert pipeline.leads_to("fx") == "onnx"
    assert str(type(pipeline).parse(str(pipeline))) == str(pipeline)
    used = whole.used(choices)
    other = drawn(data, whole) | used
    assert str(whole.pipeline(other)) == str(pipeline)


def test_what_is_shown_is_read_back(whole, tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(shown(whole))
    assert narrowed(whole, file) == whole


def test_a_file_narrows_what_it_names(whole, tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "bits: [none, quantize-static]\ndistill.steps: {low: 100, high: 200}\n"
        "prune-to-latency.speedup: [1.5, 2]\nruntime: [onnxruntime]\n"
    )
    found = narrowed(whole, file)
    assert found.dimensions["bits"] == ("none", "quantize-static")
    assert found.dimensions["distill.steps"] == Between(100, 200, log=True, rising=True)
    assert found.dimensions["prune-to-latency.speedup"] == (1.5, 2)
    assert found.dimensions["structure"] == whole.dimensions["structure"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bit: [none]", "the space has no dimension 'bit'; did you mean 'bits'"),
        ("bits: [int8]", "bits: 'int8' is none of none, quantize-static"),
        ("bits: []", "bits: name at least one of none"),
        ("bits: {low: 1, high: 2}", "bits: it has values and no bounds"),
        ("distill.steps: {low: 1, high: 200}", "distill.steps: 1 to 200 is not within 100 to 3000"),
        ("distill.steps: {low: 300, high: 200}", "300 to 200 is not within"),
        ("distill.steps: {low: 100.5, high: 200}", "are no whole numbers"),
        ("factorise-embedding.rank: {low: 40, high: 64}", "are no steps of 32 to 256 in steps of 32"),
        ("quantize-weights.bits: [true]", "quantize-weights.bits: True is none of 2, 3, 4, 8"),
        ("bits: none", "bits: write values, as [4, 8], or bounds"),
        ("- bits", "must hold settings"),
    ],
)
def test_files_that_leave_nothing_of_the_space_are_refused(whole, tmp_path, text, sentence):
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        narrowed(whole, file)
    assert sentence in str(caught.value)


def test_slots_name_a_pass_once():
    every = [name for passes in SLOTS.values() for name in passes]
    assert len(every) == len(set(every))
    assert set(FX) & set(ONNX) == set()
