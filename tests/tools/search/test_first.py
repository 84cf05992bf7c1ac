"""What a search begins with: the exact passes, each pass by itself, structures with recovery behind them."""

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


def test_structures_come_last_taught_and_rounded(whole):
    last = str(whole.pipeline(first(whole, [(4, 72, 2, 43)])[-1]))
    assert last.startswith("prune-structure{keep=(4,72,2,43)},distill{steps=548},to-onnx,")
    assert last.endswith(",remove-padding,quantize-static")


def test_structures_that_a_file_left_out_are_not_tried(whole):
    assert not any(
        point["structure"] == "prune-structure" and point["prune-structure.keep.1"] == 71
        for point in first(whole, [(4, 71, 2, 43)])
    )
