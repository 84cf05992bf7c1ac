"""Whole presets over the zoo: passes that work alone must work behind one another too."""

from dataclasses import replace

import pytest
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build.presets import WITHOUT_TEXTS
from zoo import ARCHITECTURES, onnx_program

pytestmark = pytest.mark.slow  # most of it the export of the zoo


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_pass_keeps_its_word_and_no_attention_is_lost(name):
    lowered = Pipeline.parse(WITHOUT_TEXTS["onnxruntime"]["balanced"][0].removeprefix("to-onnx,"))
    program = onnx_program(name)
    program = replace(program, info={**program.info, "pad_token_id": 1})  # CLIP pools at the highest id
    run = Pipeline([*Pipeline.parse("fuse-qkv,fuse-bias-gelu").passes, *lowered.passes]).run(
        program, Context(), keep_going=True
    )
    assert {step.text: step.error for step in run.steps if step.error} == {}
    statistics = {step.text: dict(step.statistics) for step in run.steps}
    total = ARCHITECTURES[name].expected["attention"]
    count = 0 if name == "deberta_v2" else total  # its position terms have batch and heads on one axis
    assert statistics["fuse-attention"]["attentions fused"] == f"{count} of {total}"
    kinds = [node.op_type for node in run.program.graph.graph]
    assert kinds.count("Attention") == count
