"""`optimize passes NAME --on MODEL`, --bisect, --reproduce, --dump: what a pass did, and what broke it."""

import json

import numpy as np
import onnx_ir
import pytest
from breaking import Breaks
from graphwright.passes.manager import registry
from handmade import parsed


@pytest.fixture
def model(tmp_path):
    """Two LayerNorms spelled out, and a ReduceMean that is none."""
    norm = """
        m{0} = ReduceMean({1}, axes)
        c{0} = Sub({1}, m{0})
        s{0} = Mul(c{0}, c{0})
        v{0} = ReduceMean(s{0}, axes)
        e{0} = Add(v{0}, epsilon)
        d{0} = Sqrt(e{0})
        n{0} = Div(c{0}, d{0})
    """
    weights = {"epsilon": np.array(1e-5, np.float32), "axes": np.array([-1])}
    body = norm.format(1, "x") + norm.format(2, "n1") + "y = Relu(n2)"
    program = parsed(body, "float[batch,length,8] x", "float[batch,length,8] y", weights)
    onnx_ir.save(program.graph, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def breaks(monkeypatch):
    monkeypatch.setitem(registry.PASSES, Breaks.name, "breaking:Breaks")


def test_a_pass_shows_what_it_rewrites_in_a_model(invoke, model):
    result = invoke("passes", "fuse-layer-norm", "--on", model)
    assert result.exit_code == 0, result.stderr
    assert result.output.splitlines() == [
        "fuse-layer-norm: applied",
        "  norms fused 2 of 2",
        "rewrites:",
        "  fuse norm n1",
        "  fuse norm n2",
    ]
    told = json.loads(invoke("passes", "fuse-layer-norm", "--on", model, "--json").output)
    assert told["rewrites"] == ["fuse norm n1", "fuse norm n2"]
    assert told["status"] == "applied"


def test_a_pass_that_breaks_the_model_exits_1(invoke, model, breaks):
    result = invoke("passes", "breaks", "--on", model)
    assert result.exit_code == 1
    assert "broke its contract" in result.output
    assert "rewrites:" not in result.output


def test_a_pass_must_be_named(invoke, model):
    assert "name the pass to try" in invoke("passes", "--on", model).stderr


def test_what_broke_is_found_and_kept(invoke, model, breaks, tmp_path):
    words = [model, "-o", tmp_path / "out", "--pipeline", "breaks", "--bisect", "--shapes", "1x8"]
    result = invoke(*words, "--reproduce", tmp_path / "case", "--dump", tmp_path / "dump")
    assert result.exit_code == 1
    assert "bisected: breaks: rewrite 2 of 2 (invert n2)" in (tmp_path / "out" / "report.md").read_text()
    assert (tmp_path / "case" / "pipeline.txt").read_text() == "breaks\n"
    again = invoke(tmp_path / "case" / "model.onnx", "-o", tmp_path / "again", "--pipeline", "breaks")
    assert again.exit_code == 1
    assert (tmp_path / "dump" / "01-breaks.diff").read_text() == ""  # it was rolled back
