"""The whole command on a tiny encoder: bundle, evidence, exit codes, and every kind of bad input."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import graphwright as gw
import numpy as np
import onnx
import pytest
from graphwright.ir.errors import BundleError

SHAPES = ("--shapes", "1x4,mixed:3", "--threads", "1")
LIGHT = (*SHAPES, "--quick")  # where what was measured is not what is tested
EXACT = ("--pipeline", "to-onnx,fold-constants,remove-padding")


@pytest.fixture(scope="module")
def bundle(encoder_directory, invoke, tmp_path_factory):
    out = tmp_path_factory.mktemp("bundles") / "encoder"
    result = invoke(encoder_directory, "-o", out, *EXACT, *SHAPES, "--json")
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout)


def test_a_bundle_answers_as_the_model_does(bundle, encoder_directory):
    import torch
    from transformers import AutoModel

    artifact = gw.load(bundle[0])
    assert artifact.output_names == ("sentence_embedding",)
    texts = ["a cat runs", "the big man plays a bad film and the red woman sits"]
    feed = artifact.encode(texts)
    model = AutoModel.from_pretrained(encoder_directory).eval()
    with torch.no_grad():
        hidden = model(**{name: torch.from_numpy(array) for name, array in feed.items()}).last_hidden_state
    mask = torch.from_numpy(feed["attention_mask"])[..., None].double()
    pooled = (hidden.double() * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    assert np.abs(artifact(texts) - expected).max() < 1e-5


def test_json_is_one_value_with_the_evidence(bundle):
    _, found = bundle
    assert [step["pass"] for step in found["steps"]] == EXACT[1].split(",")
    assert set(found["dispatch"]) == {"1x4", "mixed:3"}
    assert found["status"] == 0
    assert found["quality"]["reference"]["metric"] == "cosine"
    assert found["quality"]["drop"] < 0.001
    contestants = found["measurements"]["contestants"]
    assert {"PyTorch eager", "ONNX Runtime"} < set(contestants)
    for row in contestants.values():
        assert all(math.isfinite(cell["ms"]) and cell["ms"] > 0 for cell in row["workloads"].values())


def test_the_manifest_and_the_report_hold_the_evidence(bundle):
    out, found = bundle
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["pipeline"] == EXACT[1]
    assert manifest["seed"] == 0
    assert manifest["target"]["arch"]
    assert len(manifest["steps"]) == len(found["steps"])
    report = (out / "report.md").read_text()
    assert "| fold-constants |" in report
    assert "mixed:3" in report
    assert "PyTorch eager" in report


def test_two_runs_give_the_same_model_byte_for_byte(bundle, encoder_directory, command, tmp_path):
    out = tmp_path / "again"
    result = command(encoder_directory, "-o", out, *EXACT, *SHAPES, "--quiet")  # in a process of its own
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert (out / "model.onnx").read_bytes() == (bundle[0] / "model.onnx").read_bytes()


def test_onnx_is_optimised_as_well(bundle, invoke, tmp_path):
    result = invoke(
        bundle[0] / "model.onnx", "-o", tmp_path / "o", "--preset", "exact", "--shapes", "1x4", "--json"
    )
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "to-onnx" not in found["pipeline"]
    assert "PyTorch eager" not in found["measurements"]["contestants"]


def test_inspect_counts_and_says(encoder_directory, bundle, invoke):
    for model in (encoder_directory, bundle[0] / "model.onnx"):
        found = json.loads(invoke("inspect", model, "--json").stdout)
        assert found["blocks"]["attention"] == 2
        assert found["blocks"]["feed_forward"] == 2
        assert found["blocks"]["norm"] == 5
        assert found["blocks"]["embedding"] == 1
        assert found["missed"] == []
        assert found["outputs"] == ["sentence_embedding"]
        costs = found["costs"]
        whole = costs["kinds"][-1]
        assert (whole["kind"], whole["unique"]) == ("all", found["parameters"])
        assert whole["ms"] > 0
    text = invoke("inspect", encoder_directory, "--shapes", "2x7", "--untimed").stdout
    assert "in a call of 2x7:" in text
    assert "feed-forward x2" in text
    assert "2 attentions" in text
    several = invoke("inspect", encoder_directory, "--shapes", "2x7,1x8")
    assert several.exit_code == 1
    assert "name one of them" in several.stderr
    assert "2 with 4 heads of 8" in text


def test_verify_says_how_far_apart(encoder_directory, bundle, invoke, tmp_path):
    same = invoke("verify", encoder_directory, bundle[0])
    assert same.exit_code == 0
    assert "they agree" in same.stdout
    other = tmp_path / "other.onnx"
    model = onnx.load(bundle[0] / "model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("LayerNorm.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1.0, bias.name))
    onnx.save(model, other)
    result = invoke("verify", encoder_directory, other, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["distance"] > 1e-2
    assert invoke("verify", bundle[0] / "model.onnx", other, "--tolerance", 10).exit_code == 0


def test_bench_takes_bundles_files_and_directories(encoder_directory, bundle, invoke):
    models = (encoder_directory, bundle[0], bundle[0] / "model.onnx", bundle[0])
    result = invoke("bench", *models, *SHAPES, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    again = f"{bundle[0]} (2)"  # beside itself
    assert list(found["contestants"]) == [*map(str, models[:3]), again]
    assert found["threads"] == 1


def test_int8_sums_and_layers_of_a_float_bundle(bundle, encoder_directory, invoke):
    result = invoke("bench", bundle[0], *SHAPES, "--isa", "--json")
    found = json.loads(result.stdout)["portability"][str(bundle[0])]
    assert found["products"] == []
    assert set(found["isa"].values()) == {"right"}
    assert "nothing can saturate" in invoke("bench", bundle[0], *SHAPES, "--isa").stdout
    refused = invoke("inspect", "--quant", bundle[0])
    assert refused.exit_code == 1
    assert "has no quantized layer" in refused.stderr


def test_a_file_to_calibrate_on_is_what_passes_get(encoder_directory, invoke, tmp_path, monkeypatch):
    from graphwright.passes.canonical.fold_constants import FoldConstants

    seen = []
    run = FoldConstants.run
    monkeypatch.setattr(
        FoldConstants,
        "run",
        lambda self, program, context: seen.append(context) or run(self, program, context),
    )
    texts = tmp_path / "texts.txt"
    texts.write_text("a cat runs\nthe big man sits\na bad film\n")
    words = ("--pipeline", "to-onnx,fold-constants", *LIGHT)
    result = invoke(encoder_directory, "-o", tmp_path / "o", *words, "--calibrate", texts)
    assert result.exit_code == 0, result.stderr
    feeds = seen[-1].calibration
    assert sum(len(feed["input_ids"]) for feed in feeds) == 3
    texts.write_text("")
    assert "is empty" in invoke(encoder_directory, "-o", tmp_path / "p", *words, "--calibrate", texts).stderr


def test_what_trains_gets_all_texts_and_keeps_its_run_in_the_cache(
    encoder_directory, invoke, tmp_path, monkeypatch
):
    from graphwright.passes.recover.distill import Distill

    seen = []
    run = Distill.run
    monkeypatch.setattr(
        Distill, "run", lambda self, program, context: seen.append(context) or run(self, program, context)
    )
    monkeypatch.setenv("GRAPHWRIGHT_CACHE", str(tmp_path / "cache"))
    texts = tmp_path / "texts.txt"
    texts.write_text("".join(f"{'a cat runs ' * (1 + i % 3)}{i}\n" for i in range(300)))
    words = ("--pipeline", "distill{steps=2},to-onnx", *LIGHT, "--calibrate", texts)
    result = invoke(encoder_directory, "-o", tmp_path / "o", *words)
    assert result.exit_code == 0, result.stderr
    assert sum(len(feed["input_ids"]) for feed in seen[0].training) == 300
    assert sum(len(feed["input_ids"]) for feed in seen[0].calibration) == 150
    kept = list((tmp_path / "cache" / "training").glob("distill-*/state.json"))
    assert len(kept) == 1


def test_small_stores_weights_and_tables_in_four_bits(encoder_directory, invoke, tmp_path):
    result = invoke(encoder_directory, "-o", tmp_path / "o", "--preset", "small", *LIGHT, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    step = found["steps"][-1]
    assert (step["pass"], step["status"]) == ("quantize-weights{method=gptq}", "applied")
    assert step["bytes"][1] < 0.5 * step["bytes"][0]
    assert found["quality"]["score"]["value"] > 95
    assert gw.load(tmp_path / "o")(["a cat runs"]).shape == (1, 32)
    layers = json.loads(invoke("inspect", "--quant", tmp_path / "o", "--json").stdout)
    assert [layer["snr"] for layer in layers] == sorted(layer["snr"] for layer in layers)
    assert len({layer["weight"] for layer in layers}) == 2 * 6 + 2  # products, words and positions
    assert all(layer["after_us"] > 0 and layer["activation_snr"] is None for layer in layers)
    assert " – " in invoke("inspect", "--quant", tmp_path / "o").stdout  # of activation


@pytest.fixture
def rewritten_is_kept(monkeypatch):
    """The graph that passes made is kept, whatever is measured: at this size int8 and codes don't pay."""
    from graphwright.tools.build import building_graphs

    monkeypatch.setattr(building_graphs, "choose", lambda works, names, *_: dict.fromkeys(works, names[0]))


@pytest.mark.usefixtures("rewritten_is_kept")
def test_steps_that_quantize_other_weights_are_both_reported(
    encoder_directory, invoke, tmp_path, monkeypatch
):
    from graphwright.passes.quantize.quantize_dynamic import QuantizeDynamic

    monkeypatch.setattr(QuantizeDynamic, "gated", lambda pass_: False)  # int8 does not pay at this size
    passes = (
        "to-onnx", "fold-constants", "quantize-dynamic{min_cosine=0.0}",
        "quantize-weights{bits=0,embeddings=4,group=16}",
    )  # fmt: skip
    result = invoke(encoder_directory, "-o", tmp_path / "o", "--pipeline", ",".join(passes), *LIGHT)
    assert result.exit_code == 0, result.stderr
    layers = json.loads(invoke("inspect", "--quant", tmp_path / "o", "--json").stdout)
    of_float = [layer["weight"] for layer in layers if layer["activation_snr"] is None]
    assert len(layers) == 2 * 6 + len(of_float)
    assert sorted(name.split(".")[-2] for name in of_float) == ["position_embeddings", "word_embeddings"]


@pytest.mark.usefixtures("rewritten_is_kept")
def test_codes_of_a_torch_graph_are_reported(encoder_directory, invoke, tmp_path):
    words = ("--pipeline", "quantize-ternary{steps=0},to-onnx,fold-constants", *LIGHT)
    result = invoke(encoder_directory, "-o", tmp_path / "o", *words)
    assert result.exit_code == 0, result.stderr
    layers = json.loads(invoke("inspect", "--quant", tmp_path / "o", "--json").stdout)
    assert {layer["kernel"] for layer in layers} == {"decoded in the graph"}
    assert len({layer["weight"] for layer in layers}) >= 2 * 6 + 2
    assert "decoded in the graph" in invoke("inspect", "--quant", tmp_path / "o").stdout.replace("\n", " ")


def test_run_prints_outputs_for_texts_and_for_arrays(bundle, invoke, tmp_path):
    texts = ["a cat", "the man"]
    result = invoke("run", bundle[0], "--text", texts[0], "--text", texts[1], "--json")
    found = np.array(json.loads(result.stdout)["sentence_embedding"])
    artifact = gw.load(bundle[0])
    assert found == pytest.approx(artifact(texts), abs=1e-6)
    arrays = tmp_path / "arrays.json"
    arrays.write_text(json.dumps({name: array.tolist() for name, array in artifact.encode(texts).items()}))
    result = invoke("run", bundle[0], "--inputs", arrays)
    assert "sentence_embedding: float32 [2, 32]" in result.stdout


def test_run_refuses_what_does_not_fit(bundle, invoke, tmp_path):
    arrays = tmp_path / "arrays.json"
    for ids, sentence in (([[1, 99999]], "99999 is out of range"), ([[1] * 65], "at most")):
        feed = dict.fromkeys(gw.load(bundle[0]).input_names, np.ones_like(ids).tolist())
        arrays.write_text(json.dumps(feed | {"input_ids": ids}))
        result = invoke("run", bundle[0], "--inputs", arrays)
        assert result.exit_code == 1
        assert sentence in result.stderr
    arrays.write_text("[1]")
    assert "does not hold arrays" in invoke("run", bundle[0], "--inputs", arrays).stderr
    assert "either --text" in invoke("run", bundle[0]).stderr


# Bad input: one sentence, status 1, nothing written.


def refused(result, sentence, *absent):
    assert result.exit_code == 1, result.output
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stderr
    for path in absent:
        assert not path.exists()
        assert list(path.parent.glob(f".{path.name}*")) == []


def copied(source, target):
    shutil.copytree(source, target)
    return target


def test_a_directory_without_weights(encoder_directory, invoke, tmp_path):
    model = copied(encoder_directory, tmp_path / "m")
    (model / "model.safetensors").unlink()
    refused(invoke(model, "-o", tmp_path / "o"), "m", tmp_path / "o")


def test_truncated_safetensors(encoder_directory, invoke, tmp_path):
    model = copied(encoder_directory, tmp_path / "m")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused(invoke(model, "-o", tmp_path / "o"), "model.safetensors", tmp_path / "o")


def test_truncated_onnx(bundle, invoke, tmp_path):
    model = tmp_path / "m.onnx"
    model.write_bytes((bundle[0] / "model.onnx").read_bytes()[:-1000])
    refused(invoke(model, "-o", tmp_path / "o"), "m.onnx", tmp_path / "o")


def test_nan_weights(encoder_directory, invoke, tmp_path):
    from safetensors.torch import load_file, save_file

    model = copied(encoder_directory, tmp_path / "m")
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("query.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    refused(invoke(model, "-o", tmp_path / "o"), "NaN", tmp_path / "o")


def test_a_shape_that_the_model_cannot_take(encoder_directory, invoke, tmp_path):
    refused(invoke(encoder_directory, "-o", tmp_path / "o", "--shapes", "1x65"), "1x65", tmp_path / "o")


def test_processes_of_torchrun_are_sent_to_a_script(encoder_directory, invoke, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # other launchers set it too
    assert invoke(encoder_directory, "-o", tmp_path / "alone", "--pipeline", "to-onnx", *LIGHT).exit_code == 0
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    refused(invoke(encoder_directory, "-o", tmp_path / "o"), "let torchrun start a script", tmp_path / "o")


def test_data_that_cannot_be_used(encoder_directory, invoke, tmp_path):
    data = tmp_path / "d.csv"
    out = tmp_path / "o"
    for content, words, sentence in (
        ("", (), "is empty"),
        ("a cat,the cat,5\nthe\0man,a man,3\n", (), "NUL byte"),
        ("text,pair,score\na,b,1\n", ("--columns", "label=scroe"), "did you mean 'score'?"),
        ("text,stars\na,1\n", ("--task", "similarity"), "needs a pair column"),
    ):
        data.write_text(content)
        refused(invoke(encoder_directory, "-o", out, "--data", data, *words), sentence, out)
    refused(invoke(encoder_directory, "-o", out, "--data", tmp_path / "no.csv"), "no such data file", out)


def test_an_existing_directory_is_kept_unless_forced(bundle, invoke, tmp_path):
    again = (bundle[0] / "model.onnx", "--pipeline", "fold-constants", "--shapes", "1x4")
    out = copied(bundle[0], tmp_path / "o")
    before = (out / "manifest.json").stat().st_mtime_ns
    result = invoke(*again, "-o", out)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert (out / "manifest.json").stat().st_mtime_ns == before
    assert invoke(*again, "-o", out, "--force").exit_code == 0
    assert (out / "manifest.json").stat().st_mtime_ns > before
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    assert invoke(*again, "-o", other, "--force").exit_code == 1
    assert (other / "thesis.txt").read_text() == "years of work"


def test_a_bundle_tampered_with(bundle, invoke, tmp_path):
    out = copied(bundle[0], tmp_path / "o")
    content = bytearray((out / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (out / "model.onnx").write_bytes(content)
    result = invoke("run", out, "--text", "a cat")
    assert result.exit_code == 1
    assert "model.onnx" in result.stderr
    with pytest.raises(BundleError):
        gw.load(out)


def test_no_disk_space(bundle, invoke, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "model.onnx")

    monkeypatch.setattr("graphwright.backends.bundles.bundle.write_inline", full)
    monkeypatch.setattr("graphwright.backends.bundles.bundle.write_external", full)
    out = tmp_path / "o"
    result = invoke(
        bundle[0] / "model.onnx", "-o", out, "--pipeline", "fold-constants", "--shapes", "1x4", "-q"
    )
    refused(result, "no space left", out)


def test_a_goal_that_is_not_met_exits_3_and_still_saves(bundle, invoke, tmp_path, monkeypatch):
    # Every candidate is made to lose: the judge reports half of what it finds.
    from graphwright.tools.judge.quality import Fidelity, Score

    real = Fidelity.__call__
    calls = []

    def worse(self, run):
        calls.append(run)
        score = real(self, run)
        return score if len(calls) == 1 else Score(score.metric, score.value / 2)

    monkeypatch.setattr(Fidelity, "__call__", worse)
    out = tmp_path / "o"
    model = bundle[0] / "model.onnx"
    result = invoke(model, "-o", out, "--pipeline", "fold-constants", "--shapes", "1x4", "--max-drop", 1)
    assert result.exit_code == 3
    assert "the goal was not met: 50.00 points of cosine are lost, and at most 1 may be" in result.stderr
    assert gw.load(out).output_names == ("sentence_embedding",)
    assert "NOT met" in (out / "report.md").read_text()


def test_ctrl_c_leaves_nothing_half_written(bundle, tmp_path):
    out = tmp_path / "o"
    model = str(bundle[0] / "model.onnx")
    line = [
        sys.executable,
        "-m",
        "graphwright.tools.cli",
        model,
        "-o",
        str(out),
        "--pipeline",
        "fold-constants",
    ]
    process = subprocess.Popen(
        line,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" ignores it
    )
    for sentence in process.stderr:  # the pipeline is running, measuring or about to
        if sentence.startswith("Running"):
            break
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert list(tmp_path.iterdir()) == []
