"""Runs whose checks could not fail say so: nothing is met, lost or agreed over nothing."""

import numpy as np
import onnx
import onnx_ir
import pytest
from graphwright.backends.measuring.measure import Cell, Comparison
from graphwright.backends.measuring.ratios import speedup
from graphwright.ir.capture import capture
from graphwright.ir.errors import CaptureError, DataError
from graphwright.ir.execute import execute
from graphwright.ir.inputs.text import TextEncoder
from graphwright.tools import report
from graphwright.tools.build import building_graphs, work
from graphwright.tools.config import make
from graphwright.tools.console import Console
from graphwright.tools.verbs.optimize import run
from handmade import parsed

W = {"w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)}
BODIES = {
    "NaN": "z = MatMul(x, w) d = Sub(z, z) q = Div(d, d) y = Add(q, z)",
    "constant": "z = MatMul(x, w) d = Sub(z, z) y = Exp(d)",
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    def compare(contestants, workloads, threads, **_):
        cell = Cell(1.0, 1.0, 1.0, speedup([1.0] * 3, [1.0] * 3), rounds=(0.001,) * 3)
        row = {workload.name: cell for workload in workloads}
        return Comparison(dict.fromkeys(contestants, row), dict.fromkeys(contestants, 1), threads, 3, False)

    monkeypatch.setattr(work, "compare", compare)


def save(path, program):
    onnx.save(onnx_ir.to_proto(program.graph), path)
    return str(path)


def optimized(model, **settings):
    wanted = {"model": model, "preset": "exact", "shapes": ("1",), **settings}
    return run(make(wanted), Console(quiet=True))


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("more", [{}, {"max-drop": 0.1}])
def test_a_model_that_computes_nothing_ends_as_not_verified(tmp_path, kind, more):
    model = save(tmp_path / "m.onnx", parsed(BODIES[kind], "float[batch,8] x", "float[batch,8] y", W))
    outcome = optimized(model, out=str(tmp_path / "out"), **more)
    assert outcome.status == 3
    assert outcome.met is None
    assert outcome.quality is None
    assert "nothing to judge on" in outcome.unverified[0]
    assert any(sentence.startswith("not verified: the model gives") for sentence in outcome.failures)
    text = report.markdown(outcome)
    assert "Not verified: the model gives" in text
    assert "nan" not in text.replace("NaN", "")


def test_a_promise_that_no_probe_could_break_is_not_called_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(building_graphs, "choose", lambda works, names, *_: dict.fromkeys(works, names[0]))
    body = "a = Add(one, one) z = MatMul(x, w) d = Sub(z, z) q = Div(d, d) p = Mul(q, a) y = Add(p, z)"
    weights = W | {"one": np.float32(1)}
    model = save(tmp_path / "m.onnx", parsed(body, "float[batch,8] x", "float[batch,8] y", weights))
    outcome = optimized(model, preset=None, pipeline="fold-constants")
    assert [each.step.status for each in outcome.steps] == ["applied"]
    assert "'y' is NaN on every probe input, so nothing was verified" in outcome.unverified


def test_an_invalid_file_is_refused_and_no_bundle_is_left(tmp_path):
    program = parsed("y = MatMul(x, w)", "float[batch,8] x", "float[batch,8] y", W)
    proto = onnx_ir.to_proto(program.graph)
    proto.ir_version = 0
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(CaptureError):
        optimized(str(tmp_path / "m.onnx"), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "task", "sentence"),
    [
        (
            "a man,a cat,3\na woman,a film,3\n",
            "similarity",
            "every label is 3.0, so there is nothing to judge",
        ),
        ("a man,a cat,3\n", "similarity", "it has one row, so there is nothing to judge on"),
        ("a man,a cat,nan\na woman,a film,nan\n", None, "which is no label"),
        ("a man,a man,3\na cat,a cat,4\n", "similarity", "gives every pair the same similarity"),
    ],
)
def test_rows_on_which_every_model_would_do_as_well_are_refused(
    encoder_directory, tmp_path, rows, task, sentence
):
    (tmp_path / "d.csv").write_text(rows)
    with pytest.raises(DataError, match=sentence):
        optimized(str(encoder_directory), data=str(tmp_path / "d.csv"), task=task)


@pytest.fixture(scope="module")
def reranker(encoder_directory, tmp_path_factory):
    """A cross-encoder: one score (num_labels 1) for a pair of texts."""
    import shutil

    import torch
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("models") / "reranker"
    config = BertConfig.from_pretrained(encoder_directory, num_labels=1, initializer_range=0.2)
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(encoder_directory / name, folder / name)
    return str(folder)


TWO_BITS = "to-onnx,quantize-weights{bits=2,embeddings=2,group=32}"


@pytest.mark.parametrize("labelled", [False, True])
def test_a_cross_encoder_of_one_score_is_judged_by_ranks(reranker, tmp_path, monkeypatch, labelled):
    monkeypatch.setattr(building_graphs, "choose", lambda works, names, *_: dict.fromkeys(works, names[0]))
    more = {}
    if labelled:
        words = ["man", "cat", "film", "woman", "good", "bad", "big", "red"]
        pairs = [(a, f"{b} {c}") for a in words for b in words for c in words[:2]]
        plain = capture(reranker)
        judged = TextEncoder(plain.tokenizer["tokenizer.json"], plain.inputs, plain.info, plain.symbols)
        feed = judged([a for a, _ in pairs], [b for _, b in pairs])
        scores = execute(plain, [feed])[0]["logits"][:, 0]
        rows = "".join(f"{a};{b};{s:.6f}\n" for (a, b), s in zip(pairs, scores, strict=True))
        (tmp_path / "d.csv").write_text("query;text2;score\n" + rows)
        more = {"data": str(tmp_path / "d.csv")}
    outcome = optimized(
        reranker, preset=None, pipeline=TWO_BITS, shapes=("1x8",), **more, **{"max-drop": 0.1}
    )
    assert outcome.quality.score.metric == "rank correlation"
    assert outcome.quality.reference.value == pytest.approx(100, abs=0.01)
    # The weights of two bits are given up for the model as it was: that loses nothing.
    assert "quantize-weights" in outcome.notes[-1]
    assert outcome.met
    assert [each.step.text for each in outcome.steps] == ["to-onnx"]
