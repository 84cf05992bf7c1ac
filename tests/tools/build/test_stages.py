"""What the graph viewer is told: lines that changed, and the block of each node, however it was fused."""

import json

import pytest
from graphwright.ir.text import text
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.stages import Stages


@pytest.fixture(scope="module")
def captured(encoder_directory):
    from graphwright.ir.capture import capture

    return capture(str(encoder_directory))


def ran(program, pipeline, instrument):
    found = Pipeline.parse(pipeline).run(program, Context(), instruments=[instrument])
    assert found.ok
    return found.program


def shown(stages, number):
    record = json.loads(json.dumps(stages.to_json()))
    return {record["nodes"][each][0]: record["nodes"][each] for each in record["stages"][number]["nodes"]}


def test_a_stage_holds_every_line_of_its_program(captured):
    stages = Stages()
    after = ran(captured, "to-onnx,fold-constants", stages)
    lines = text(after).splitlines()[1:-1]
    assert [node[2] for node in shown(stages, -1).values()] == lines
    assert [node[2] for node in shown(stages, 0).values()] == text(captured).splitlines()[1:-1]


def test_what_stays_is_kept_once(captured):
    stages = Stages()
    ran(captured, "to-onnx,fold-constants", stages)
    record = stages.to_json()
    (_, before, after) = (set(stage["nodes"]) for stage in record["stages"])
    assert len(before & after) > 0.7 * len(after)
    assert len(record["nodes"]) == len({tuple(map(str, node)) for node in record["nodes"]})


def test_passes_that_change_nothing_are_no_stage(captured):
    stages = Stages()
    ran(captured, "to-onnx,fuse-rotary", stages)
    assert [stage["pass"] for stage in stages.to_json()["stages"]] == ["as captured", "to-onnx"]


def test_blocks_outlive_their_recognition(captured):
    """A fused attention is recognised no more; its nodes, new ones too, stay in it."""
    stages = Stages()
    ran(captured, "to-onnx,fold-constants,fuse-attention,quantize-weights{bits=8,group=32}", stages)
    fused = [node for node in shown(stages, -1).values() if "Attention" in node[1]]
    assert [node[4] for node in fused] == ["attention 0", "attention 1"]
    packed = [node for node in shown(stages, -1).values() if "MatMulNBits" in node[1]]
    assert {node[4] for node in packed} >= {"attention 0", "attention 1", "feed_forward 0", "feed_forward 1"}
    assert all(node[4] for node in packed)


def test_a_block_keeps_its_number_when_one_before_it_goes(captured):
    stages = Stages()
    ran(captured, "prune-layers{choose=top,keep=1}", stages)
    before, after = shown(stages, 0), shown(stages, 1)
    kept = {node[4] for node in after.values() if node[4].startswith("attention")}
    assert kept == {"attention 1"}
    assert {node[4] for node in before.values() if node[4].startswith("attention")} == {"attention 0", *kept}


def test_too_much_for_a_page_is_left_out(captured, monkeypatch):
    monkeypatch.setattr("graphwright.tools.build.stages.MOST", 100)
    stages = Stages()
    ran(captured, "to-onnx", stages)
    assert stages.to_json() is None
