"""What a search begins with: the exact passes, each rounding, structures and other passes, taught."""

import pytest
import zoo
from graphwright.passes.manager.contract import Context
from graphwright.tools.search.first import first
from graphwright.tools.search.slots import SLOTS
from graphwright.tools.search.space import space


@pytest.fixture(scope="module")
def whole():
    needs = {"calibration": [{}], "original": object(), "measure": lambda *a, **k: {}, "target": object()}
    return space(zoo.fx_program("bert"), ("onnxruntime",), Context(**needs))


def test_the_first_points_are_in_the_space_and_make_pipelines_that_differ(whole):
    points = first(whole, [(4, 72, 2, 43)])
    assert all(set(point) == set(whole.dimensions) for point in points)
    pipelines = [str(whole.pipeline(point)) for point in points]
    assert len(set(pipelines)) == len(pipelines)
    assert pipelines[0].startswith("to-onnx,")
    assert "quantize" not in pipelines[0]
    for slot, names in SLOTS.items():
        for name in names:
            tried = any(name in pipeline for pipeline in pipelines)
            assert tried == (name in whole.dimensions[slot]), name


def test_structures_come_behind_roundings_and_before_other_passes_taught_and_rounded(whole):
    pipelines = [str(whole.pipeline(point)) for point in first(whole, [(4, 72, 2, 43), (4, 0, 2, 43)])]
    roundings = len(whole.values("bits")) - 1
    assert not any("distill" in pipeline for pipeline in pipelines[: 1 + roundings])
    structures, others = pipelines[1 + roundings : 3 + roundings], pipelines[3 + roundings :]
    for kept, pipeline in zip(("4,72,2,43", "4,0,2,43"), structures, strict=True):
        assert pipeline.startswith(f"prune-structure{{keep=({kept})}},distill{{steps=100}},to-onnx,")
    for pipeline in (*structures, *others):
        assert ",distill{steps=100},to-onnx," in pipeline
        assert pipeline.endswith(",remove-padding,quantize-static")
    assert len({pipeline.partition("{")[0] for pipeline in others}) == len(others) > 3


def test_structures_that_a_file_left_out_are_not_tried(whole):
    assert not any(
        point["structure"] == "prune-structure" and point["prune-structure.keep.1"] == 71
        for point in first(whole, [(4, 71, 2, 43)])
    )
