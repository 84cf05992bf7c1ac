"""Presets are pipelines like any other, and a missed goal falls back towards exactness."""

import pytest
from graphwright.ir.program import Program
from graphwright.passes.base import Exact
from graphwright.passes.manager import Pipeline
from graphwright.tools import presets
from graphwright.tools.config import make
from graphwright.tools.work import candidates

FX, ONNX = (Program(None, dialect, (), ()) for dialect in ("fx", "onnx"))


def lossy(pipeline):
    return [pass_.name for pass_ in pipeline.passes if not isinstance(pass_.effect, Exact)]


@pytest.mark.parametrize("name", list(presets.TEXTS))
def test_a_preset_is_a_text_that_round_trips(name):
    for text in (presets.TEXTS[name], *presets.SAFER[name]):
        assert str(Pipeline.parse(text)) == text


@pytest.mark.parametrize("name", list(presets.TEXTS))
def test_every_chain_ends_in_an_exact_pipeline(name):
    chain = candidates(make({"model": "m", "preset": name}), FX, None)
    assert lossy(chain[-1]) == []
    assert bool(lossy(chain[0])) == (name != "exact")
    assert len({str(pipeline) for pipeline in chain}) == len(chain)


def test_a_model_that_is_onnx_already_is_not_lowered():
    assert str(presets.chain("exact", FX)[0]).startswith("to-onnx,")
    assert "to-onnx" not in str(presets.chain("exact", ONNX)[0])


def test_a_pipeline_that_misses_its_goal_loses_its_lossy_passes_one_by_one():
    given = Pipeline.parse("quantize-dynamic,fold-constants,quantize-dynamic{min_cosine=0.5}")
    chain = candidates(make({"model": "m", "pipeline": str(given)}), ONNX, given)
    assert [str(pipeline) for pipeline in chain] == [
        str(given),
        "quantize-dynamic,fold-constants",
        "fold-constants",
    ]
