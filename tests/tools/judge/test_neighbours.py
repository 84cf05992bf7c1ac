"""No preset lets a text's vector depend on the texts beside it, and the report says by how much it does."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphwright.backends.measuring.workloads import prose, workloads
from graphwright.backends.runtimes.onnxruntime import OnnxRuntime
from graphwright.backends.target import detect
from graphwright.ir.capture import capture
from graphwright.passes.manager.contract import Context
from graphwright.passes.manager.pipeline import Pipeline
from graphwright.tools.build import presets
from graphwright.tools.build.compiling import Compiler
from graphwright.tools.config import make
from graphwright.tools.console import Console
from graphwright.tools.judge.data import Row
from graphwright.tools.judge.judging import judging, read_data
from graphwright.tools.judge.neighbours import PROMISED, Neighbours, neighbours, of_probes, of_texts
from handmade import operators, parsed
from transformers import BertConfig, BertModel

RANGE = 0.4  # standard deviation of the weights
ROWS = [Row(number, text) for number, text in enumerate(prose()[:40])]


@pytest.fixture(scope="module")
def plain(encoder_directory, tmp_path_factory):
    """The tiny encoder with weights large enough that tokens differ in how large their activations are."""
    folder = tmp_path_factory.mktemp("models") / "encoder"
    shutil.copytree(encoder_directory, folder)
    torch.manual_seed(0)
    BertModel(BertConfig.from_pretrained(folder, initializer_range=RANGE)).save_pretrained(folder)
    return Pipeline.parse("to-onnx").run(capture(str(folder))).program


@pytest.fixture(scope="module")
def context(plain):
    run = OnnxRuntime().build(plain, threads=1).run
    feeds = judging(read_data(make({"model": "m"}), plain), plain, run, 0).calibration
    return Context(target=detect(), threads=1, calibration=feeds)


def made(plain, context, pipeline, backend="onnxruntime"):
    """(program, what runs it)."""
    context = replace(context, runtime=backend)
    ran = Pipeline([pass_ for pass_ in pipeline.passes if pass_.source != "fx"]).run(plain, context)
    assert ran.ok, ran.steps[-1].error
    if backend == "onnxruntime":
        return ran.program, OnnxRuntime().build(ran.program, threads=1).run
    compiler = Compiler(plain, detect(), 1, workloads(plain, ["1x16"]), (), Console(quiet=True))
    return ran.program, compiler(ran.program).run


def asked(plain, program, run):
    return neighbours(program, of_texts(program, ROWS, False, run), run, plain, 1)


@pytest.mark.parametrize("backend", ["onnxruntime", "tvm"])
@pytest.mark.parametrize("preset", list(presets.CHAINS["onnxruntime"]))
def test_every_preset_on_every_runtime(plain, context, preset, backend):
    program, run = made(plain, context, presets.chain(preset, plain, backend)[0], backend)
    assert preset not in ("balanced", "fast") or "MatMulIntegerToFloat" in operators(program)
    stored = {value.const_value.dtype.name for value in program.graph.graph.initializers.values()}
    assert ("BFLOAT16" in stored) == ((preset, backend) == ("bfloat16", "tvm"))
    found = asked(plain, program, run)
    assert list(found.worst) == ["in batches of 8", "in batches of 32", "padded to 48"]
    assert found.rows == 32
    assert min(found.worst.values()) >= 1 - 1e-9  # with one scale for the tensor: 0.998
    assert found.kept
    assert not found.own


@pytest.mark.parametrize("preset", ["balanced", "fast"])
def test_a_model_without_texts_gets_a_scale_per_token(plain, context, preset):
    mute = replace(plain, tokenizer={})
    program, run = made(mute, replace(context, calibration=()), presets.chain(preset, mute)[0])
    assert operators(program).count("ReduceMax") > 0
    assert "DynamicQuantizeLinear" not in operators(program)
    found = neighbours(program, of_probes(program, 0), run, plain, 1)
    assert list(found.worst) == ["in batches of 2 to 5"]
    assert found.rows == 15
    assert min(found.worst.values()) >= 1 - 1e-9


def test_one_scale_for_the_tensor_is_found_out(plain, context):
    program, run = made(plain, context, Pipeline.parse("quantize-dynamic{scale=tensor,min_cosine=0.0}"))
    found = asked(plain, program, run)
    assert min(found.worst.values()) < PROMISED
    assert not found.kept
    assert min(found.own.values()) > 0.999999
    assert "moves by at most" in found.sentence()
    assert "The model's own moves by" in found.sentence()


def test_a_model_whose_outputs_are_about_the_batch_is_not_blamed_on_the_build(plain):
    """Vectors less their mean over the batch: as in float, so in the build."""

    def centred(run):
        def less(feed):
            return {k: v - v.mean(axis=0, keepdims=True) * 0.5 for k, v in run(feed).items()}

        return less

    run = OnnxRuntime().build(plain, threads=1).run
    calls = of_texts(plain, ROWS, False, run)
    worst = neighbours(plain, calls, centred(run), plain, 1).worst
    assert min(worst.values()) < PROMISED
    same = dict.fromkeys(worst, min(worst.values()))
    assert Neighbours(worst, same, 0.0, 32, "texts").kept
    assert not Neighbours(worst, {}, 0.0, 32, "texts").kept


def test_nan_in_a_batch_alone_is_a_difference(plain):
    run = OnnxRuntime().build(plain, threads=1).run

    def spoiled(feed):
        found = run(feed)
        if len(next(iter(feed.values()))) == 8:
            next(iter(found.values()))[3] = np.nan
        return found

    found = neighbours(plain, of_texts(plain, ROWS, False, run), spoiled, plain, 1)
    assert found.worst["in batches of 8"] == -1
    assert found.worst["in batches of 32"] > 0.999999


def test_a_number_for_each_text_is_judged_over_all_texts(plain):
    """One score a row has no direction of its own: all scores are one vector."""
    run = OnnxRuntime().build(plain, threads=1).run

    def scores(feed, push=0.0):
        vectors = next(iter(run(feed).values()))
        return {"score": vectors.reshape(len(vectors), -1)[:, :1] + push * (len(vectors) - 1)}

    calls = of_texts(plain, ROWS, False, run)
    assert min(neighbours(plain, calls, scores, plain, 1).worst.values()) > 0.999999
    moved = neighbours(plain, calls, lambda feed: scores(feed, 0.5), plain, 1).worst
    assert moved["in batches of 32"] < moved["in batches of 8"] < PROMISED < moved["padded to 48"]


def test_outputs_at_padding_are_nobodys_and_no_distance():
    body = "e = Gather(table, ids) f = Cast<to=1>(mask) g = Unsqueeze(f, last) y = Mul(e, g)"
    weights = {"table": np.random.default_rng(0).standard_normal((8, 4), np.float32), "last": np.array([2])}
    inputs = "int64[batch,length] ids, int64[batch,length] mask"
    program = parsed(body, inputs, "float[batch,length,4] y", weights)
    run, calls = OnnxRuntime().build(program, threads=1).run, of_probes(program, 0)
    assert any((feed["mask"] == 0).any() for feed in calls.alone)

    def moved(at):
        answer = lambda feed: {"y": run(feed)["y"] + (feed["mask"] == at)[..., None].astype(np.float32)}
        return neighbours(program, calls, answer, program, 1).distance

    assert moved(0) == 0
    assert moved(1) > 0.1
