"""Presets are pipelines like any other, and a missed goal falls back towards exactness."""

from dataclasses import replace

import numpy as np
import pytest
from graphwright.ir.program import Program
from graphwright.passes.manager.contract import Exact
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build import presets
from graphwright.tools.build.work import candidates
from graphwright.tools.config import make
from tokens import batch, pooled

FX, ONNX = (Program(None, dialect, (), ()) for dialect in ("fx", "onnx"))
NAMES = list(presets.CHAINS["onnxruntime"])


def lossy(pipeline):
    return [pass_.name for pass_ in pipeline.passes if not isinstance(pass_.effect, Exact)]


@pytest.mark.parametrize("backend", list(presets.CHAINS))
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_is_a_text_that_round_trips(backend, name):
    for text in (*presets.CHAINS[backend][name], *presets.WITHOUT_TEXTS[backend][name]):
        assert str(Pipeline.parse(text)) == text


def test_scales_are_calibrated_where_there_are_texts_and_a_tokens_own_where_there_are_none():
    def passes(program):
        return lossy(presets.chain("balanced", program)[0])

    reads = replace(ONNX, tokenizer={"tokenizer.json": b"{}"})
    assert passes(reads) == ["quantize-static"]
    assert passes(ONNX) == ["quantize-dynamic"]
    for chain in (presets.chain(name, ONNX) for name in NAMES):
        assert not any("scale=tensor" in str(pipeline) for pipeline in chain)


@pytest.mark.parametrize("backend", list(presets.CHAINS))
@pytest.mark.parametrize("name", NAMES)
def test_every_chain_ends_in_an_exact_pipeline(backend, name):
    chain = candidates(make({"model": "m", "preset": name}), FX, None, backend)
    assert lossy(chain[-1]) == []
    assert bool(lossy(chain[0])) == (name != "exact")
    assert len({str(pipeline) for pipeline in chain}) == len(chain)


def test_a_model_that_is_onnx_already_is_not_lowered():
    assert str(presets.chain("exact", FX)[0]).startswith("to-onnx,")
    assert "to-onnx" not in str(presets.chain("exact", ONNX)[0])


def test_every_backend_has_every_preset():
    assert {backend: list(chains) for backend, chains in presets.CHAINS.items()} == dict.fromkeys(
        ("onnxruntime", "tvm"), NAMES
    )


def test_a_pipeline_that_misses_its_goal_loses_its_lossy_passes_one_by_one():
    given = Pipeline.parse("quantize-dynamic,fold-constants,quantize-dynamic{min_cosine=0.5}")
    chain = candidates(make({"model": "m", "pipeline": str(given)}), ONNX, given)
    assert [str(pipeline) for pipeline in chain] == [
        str(given),
        "quantize-dynamic,fold-constants",
        "fold-constants",
    ]


def begins(name, *lengths, backend="onnxruntime", timed=True):
    program = pooled(name)
    feeds = [batch(program, (length,)) for length in lengths]
    chain = presets.chain("balanced", program, backend)
    found = presets.begun(chain, program, feeds, backend, timed)
    first = [str(pipeline).removesuffix(str(rest)) for pipeline, rest in zip(found, chain, strict=True)]
    assert len(set(first)) == 1
    return first[0]


def test_long_calls_of_a_model_with_windows_begin_with_blocks():
    assert begins("modernbert", 8, 300) == "block-attention,"
    assert begins("modernbert", 8, 128) == ""
    assert begins("modernbert", 8, 300, timed=False) == ""  # one graph for both calls
    assert begins("modernbert", 200, 300, timed=False) == "block-attention,"
    assert begins("modernbert", 8, 300, backend="tvm") == ""


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_model_that_looks_at_all_keys_begins_as_it_did(name):
    assert begins(name, 300) == ""


def test_a_model_that_is_onnx_already_begins_as_it_did():
    chain = presets.chain("exact", ONNX)
    assert presets.begun(chain, ONNX, [{"ids": np.zeros((1, 300), np.int64)}]) == chain
