"""optimize --backend: tvm compiles, auto builds for both and keeps the faster, and says so."""

import json
import math

import cached
import graphwright as gw
import numpy as np
import onnx
import pytest
import torch
import zoo
from graphwright.backends.bundles.bundle import Variant
from graphwright.backends.measuring.measure import Cell, Comparison
from graphwright.backends.measuring.ratios import speedup
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime, save_model
from graphwright.backends.target import detect
from graphwright.backends.tvm.run import versions
from graphwright.ir.capture import capture
from graphwright.ir.errors import BackendError
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic
from graphwright.tools.build import kept as keeping
from graphwright.tools.build.building import Build, Candidate
from graphwright.tools.build.steps import PLAIN, Quality
from graphwright.tools.cli import app
from graphwright.tools.config import ConfigError, make
from graphwright.tools.judge.quality import Score
from graphwright.tools.verbs.optimize import optimize
from merged import merged
from typer.testing import CliRunner

QUICK = {"preset": "exact", "shapes": ("1x4",), "threads": 1}


@pytest.fixture(scope="module")
def model(encoder_directory, tmp_path_factory):
    """(path, program) of the tiny encoder in ONNX; its tokenizer lies beside it."""
    folder = tmp_path_factory.mktemp("onnx")
    program = Pipeline.parse("to-onnx").run(capture(str(encoder_directory))).program
    save_model(program, folder / "encoder.onnx")
    for name, content in program.tokenizer.items():
        (folder / name).write_bytes(content)
    return folder / "encoder.onnx", program


@pytest.fixture(scope="module")
def compiled(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("tvm") / "encoder"
    return optimize(model[0], out, backend="tvm", **QUICK), out


def test_a_compiled_bundle_answers_as_the_model_does(compiled, model):
    outcome, out = compiled
    reference = OnnxRuntime().build(model[1], threads=1).run
    bundle = gw.load(out)
    assert bundle.manifest.compiled is not None
    for batch, length in ((1, 4), (3, 16), (1, 48), (5, 7)):
        rng = np.random.default_rng(batch)
        ids = rng.integers(5, 40, (batch, length))
        mask = (np.arange(length) < rng.integers(1, length + 1, (batch, 1))).astype(np.int64)
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed = {name: feed[name] for name in bundle.input_names}
        for name, expected in reference(feed).items():
            np.testing.assert_allclose(bundle.run(feed)[name], expected, atol=1e-5)
    assert outcome.status == 0


def test_the_manifest_and_the_report_hold_the_evidence(compiled):
    outcome, out = compiled
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["backend"], manifest["other"], manifest["seed"]) == ("tvm", None, 0)
    assert manifest["dispatch"] == []
    assert set(manifest["measurements"]["contestants"]) == {PLAIN, "tvm"}
    assert "fuse-attention" not in manifest["pipeline"]  # TVM finds attention by itself
    assert outcome.quality.drop < 0.001
    text = (out / "report.md").read_text()
    assert "| bundle |" in text
    assert manifest["target"] == detect().to_json()


def test_every_text_that_the_model_takes_has_its_size(compiled):
    bundle = gw.load(compiled[1])
    assert bundle.manifest.symbols["length"][1] == 64  # what its table of positions holds
    assert np.isfinite(bundle(["a cat runs " * 40])).all()


def test_verbs_take_it_like_any_other_bundle(compiled, model):
    runner, out = CliRunner(), str(compiled[1])
    verified = runner.invoke(app, ["verify", str(model[0]), out, "--json"])
    assert json.loads(verified.stdout)["same"], verified.stdout
    ran = runner.invoke(app, ["run", out, "--text", "a cat", "--json"])
    assert np.shape(json.loads(ran.stdout)["sentence_embedding"]) == (1, 32)
    timed = runner.invoke(
        app, ["bench", str(model[0]), out, "--shapes", "1x4", "--threads", "1", "--json", "--isa"]
    )
    assert timed.exit_code == 0, timed.stderr
    assert len(json.loads(timed.stdout)["contestants"]) == 2


@pytest.mark.slow
def test_auto_reports_both_and_keeps_the_faster(model, tmp_path):
    shapes = ("1x4", "mixed:3")
    outcome = optimize(model[0], tmp_path / "out", backend="auto", **{**QUICK, "shapes": shapes})
    cells, other = outcome.comparison.cells, outcome.other
    ours, theirs = (
        math.prod(cells[graph][work].ms for work, graph in dispatch.items())
        for dispatch in (outcome.dispatch, other.dispatch)
    )
    assert ours <= theirs
    assert other.ratio == pytest.approx((theirs / ours) ** 0.5)
    assert {outcome.backend, other.backend} == {"onnxruntime", "tvm"}
    found = gw.load(tmp_path / "out").manifest
    assert (found.compiled is not None) == (outcome.backend == "tvm")
    assert f"| {other.backend} build |" in (tmp_path / "out" / "report.md").read_text()
    assert found.record["other"]["backend"] == other.backend


@pytest.mark.slow
def test_auto_goes_on_without_tvm_and_tvm_alone_does_not(model, monkeypatch, tmp_path):
    monkeypatch.setitem(versions.PINS, "apache-tvm", "9.9")
    outcome = optimize(model[0], backend="auto", **QUICK)
    assert (outcome.backend, outcome.other) == ("onnxruntime", None)
    assert any("there is no build for tvm: the tvm backend needs apache-tvm==9.9" in n for n in outcome.notes)
    with pytest.raises(BackendError, match=r"apache-tvm==9\.9 and 0\.27\.0\.post1 is installed"):
        optimize("nowhere", tmp_path / "out", backend="tvm")


def test_bodies_are_refused_for_tvm_before_any_work(tmp_path, capsys):
    onnx.save(merged(), tmp_path / "merged.onnx")
    with pytest.raises(
        BackendError, match=r"TVM compiles no If \(at 'logits'\): .* \(--backend onnxruntime\)"
    ):
        optimize(tmp_path / "merged.onnx", backend="tvm", **QUICK)
    assert "quantize" not in (said := capsys.readouterr()).err + said.out


@pytest.mark.slow
def test_int8_is_judged_and_reported_as_it_is_compiled(model, monkeypatch):
    monkeypatch.setattr(QuantizeDynamic, "gated", lambda pass_: False)  # int8 need not pay at this size
    pipeline = "fold-constants,quantize-dynamic{min_cosine=0.0}"
    outcome = optimize(model[0], backend="tvm", pipeline=pipeline, shapes=("1x4",), threads=1)
    assert 0 < outcome.quality.drop < 1
    assert len(outcome.layers) == 12
    assert {(each.kernel, each.before_us, each.after_us) for each in outcome.layers} == {
        ("compiled", None, None)
    }


def test_another_processor_is_compiled_for_and_not_measured(model, tmp_path):
    other = "aarch64-neon" if detect().arch == "x86_64" else "x86-64-avx2"
    outcome = optimize(model[0], tmp_path / "out", backend="tvm", target=other, **QUICK)
    assert set(outcome.comparison.cells) == {PLAIN}
    assert not outcome.measured
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| bundle |" not in text
    assert f"compiled for {other}" in text
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["compiled"]["arch"] != detect().arch


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backend": "tv"}, "backend: input should be 'onnxruntime', 'tvm' or 'auto' (given: 'tv')"),
        ({"backend": "auto", "target": "aarch64-neon"}, "backend auto measures both builds on this machine"),
    ],
)
def test_a_wrong_backend_is_named(settings, sentence):
    with pytest.raises(ConfigError) as caught:
        make({"model": "m", **settings})
    assert sentence in str(caught.value)


def build(backend, drop=0.0, met=None):
    quality = Quality(Score("Spearman", 80), Score("Spearman", 80 - drop), drop, 10, "d.csv")
    candidate = Candidate(Pipeline.parse("fold-constants"), (), {}, quality, (), {})
    return Build(backend, candidate, met, (Variant(backend, None),), {"a": backend, "b": backend}, {})


def compared(**ms):
    cells = {
        name: {
            work: Cell(each, each, each, speedup([1.0] * 3, [1.0] * 3))
            for work, each in zip("ab", times, strict=True)
        }
        for name, times in ms.items()
    }
    return Comparison(cells, {}, 2, 3, False)


@pytest.mark.parametrize(
    ("one", "two", "backend", "ratio"),
    [
        # Twice as fast at one workload, half as slow again at the other.
        (("onnxruntime", 0, None), ("tvm", 0, None), "tvm", math.sqrt(2 / 1.5)),
        (("onnxruntime", 0, True), ("tvm", 3, False), "onnxruntime", math.sqrt(1.5 / 2)),
        (("onnxruntime", 2, False), ("tvm", 1, False), "tvm", math.sqrt(2 / 1.5)),
        (("onnxruntime", 1, False), ("tvm", 2, False), "onnxruntime", math.sqrt(1.5 / 2)),
    ],
)
def test_the_faster_is_kept_unless_it_misses_the_goal(one, two, backend, ratio):
    comparison = compared(onnxruntime=(2.0, 4.0), tvm=(1.0, 6.0))
    found, other = keeping.kept([build(*one), build(*two)], comparison)
    assert found.backend == backend != other.backend
    assert other.ratio == pytest.approx(ratio)
    assert keeping.kept([build(*one)], comparison)[1] is None


def test_the_option_is_a_key_of_the_file():
    result = CliRunner().invoke(app, ["m", "-o", "out", "--backend", "auto", "--dry-run"])
    assert "backend: auto\n" in result.stdout
    assert make({"model": "m"}).backend == "onnxruntime"


def test_a_text_too_long_for_every_compiled_size_is_told_of(model, compiled, tmp_path, monkeypatch):
    monkeypatch.setattr("graphwright.tools.build.compiling.longest_text", lambda program, padding: 512)
    outcome = optimize(model[0], tmp_path / "out", backend="tvm", **QUICK)
    told = "texts of more than 64 tokens are cut there; for longer ones name a shape, as 1x128"
    assert told in outcome.notes
    assert told not in compiled[0].notes


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "tvm"])
def test_a_decoder_step_over_a_cache_is_built_and_judged(tmp_path, backend):
    model, step = zoo.ARCHITECTURES["llama"].build(), tmp_path / "step.onnx"
    cached.export(model, step)
    outcome = optimize(step, tmp_path / "out", backend=backend, preset="exact", shapes=("1x6",), threads=1)
    assert outcome.status == 0
    inputs = cached.feed(model.config, 1, 6)
    with torch.no_grad():
        expected = cached.Cached(model)(*inputs.values())
    found = gw.load(tmp_path / "out").run({name: tensor.numpy() for name, tensor in inputs.items()})
    for array, tensor in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(array, tensor.numpy(), atol=1e-5)
