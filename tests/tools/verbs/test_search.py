"""The whole command on a tiny encoder: real candidates, their bundles, going on, and what is refused."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import graphwright as gw
import pytest
from graphwright.passes.prune import prune_structure
from graphwright.tools.search import structures
from graphwright.tools.search.goal import goal

LIGHT = ("--shapes", "1x4", "--threads", "1", "--quick")
BITS = "bits: [none, quantize-dynamic, quantize-weights]\nquantize-dynamic.min_cosine: [0.0]\n"
ONLY_BITS = BITS + "".join(
    f"{slot}: [none]\n"
    for slot in ("vocabulary", "structure", "attention", "embedding", "rank", "tying", "tokens", "recovery")
)


@pytest.fixture(scope="module")
def space_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("space") / "bits.yaml"
    file.write_text(ONLY_BITS)
    return file


@pytest.fixture(scope="module")
def searched(encoder_directory, space_file, tmp_path_factory):
    """Three trials, then two more of the same study."""
    out = tmp_path_factory.mktemp("searches") / "bits"
    order = {"goal": "drop<=5", "minimise": "latency,size", "space": space_file, "threads": 1, "quick": True}
    first = gw.search(encoder_directory, out, trials=3, shapes="1x4", **order)
    return first, gw.search(encoder_directory, out, trials=5, shapes="1x4", resume=True, **order), out


@pytest.mark.slow
def test_the_front_is_bundles_that_run_and_say_what_they_are(searched):
    _, found, out = searched
    record = json.loads((out / "front.json").read_text())
    assert record == found.record
    assert found.status == 0
    assert set(record["bundles"]) == {str(number) for number in record["front"]}
    for number in record["front"]:
        one = record["trials"][number]
        bundle = gw.load(out / record["bundles"][str(number)])
        assert bundle(["a cat runs"]).shape == (1, 32)
        manifest = json.loads((out / record["bundles"][str(number)] / "manifest.json").read_text())
        assert manifest["pipeline"] == one["pipeline"]
        assert manifest["weight_bytes"][0] / 1e6 == pytest.approx(one["values"]["size"])
        assert manifest["quality"]["drop"] == pytest.approx(one["values"]["drop"])


def test_values_follow_from_the_baseline_and_the_ratio(searched):
    _, found, _ = searched
    base = found.record["baseline"]["latency@1x4"]
    for one in found.trials:
        if one.state == "complete":
            assert one.values["latency@1x4"] == pytest.approx(base / one.values["speedup@1x4"])


def test_going_on_keeps_what_was_there(searched):
    first, second, _ = searched
    assert [one.number for one in second.trials] == list(range(5))
    assert [one.to_json() for one in second.trials[:3]] == [one.to_json() for one in first.trials]


@pytest.mark.slow
def test_the_same_search_again_decides_the_same_from_the_cache(
    searched, encoder_directory, space_file, tmp_path
):
    _, before, _ = searched
    after = gw.search(
        encoder_directory, tmp_path / "again", "drop<=5", minimise="latency,size", trials=5, shapes="1x4",
        space=space_file, threads=1, quick=True,
    )  # fmt: skip

    def decided(found):
        return [{**one.to_json(), "seconds": 0} for one in found.trials]

    assert decided(after) == decided(before)


@pytest.mark.slow
def test_what_nothing_meets_ends_with_3_and_the_nearest(encoder_directory, space_file, invoke, tmp_path):
    words = ("--goal", "size<=1KB", "--space", space_file, "--trials", 2, *LIGHT)
    result = invoke("search", encoder_directory, "-o", tmp_path / "o", *words, "--json")
    assert result.exit_code == 3
    record = json.loads(result.stdout)
    assert (record["met"], record["front"]) == (False, [])
    assert record["distance"] == pytest.approx(
        goal("size<=1KB").distance(record["trials"][record["nearest"]]["values"])
    )
    assert f"trial {record['nearest']} is the nearest, and its bundle is saved: size is" in result.stderr
    assert (tmp_path / "o" / record["bundles"][str(record["nearest"])]).is_dir()
    assert "<h2>Trials</h2>" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_the_space_is_printed(encoder_directory, invoke):
    result = invoke("search", encoder_directory, "--space", "show", "--threads", "1")
    assert result.exit_code == 0, result.stderr
    assert "prune-structure.keep.3: [0, 13, 26, 38, 51, 64]" in result.stdout
    assert result.stdout.startswith("vocabulary: [none, prune-vocabulary]\n")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--goal", "sise<=1MB"), "there is no metric 'sise'; did you mean 'size'"),
        (("--goal", "size<=1MB", "--budget", "soon"), "'soon' is no time: write one as 2h, 90m or 1h30m"),
        (("--goal", "size<=1MB", "--resume"), "to resume: leave out --resume to begin one"),
        (("--goal", "size<=1MB", "--best", "speed"), "best: 'speed' is not minimised"),
        (("--goal", "size<=1MB", "--data", "none.csv"), "no such data file: none.csv"),
        (("--goal", "size<=1MB", "--space", "none.yaml"), "no such configuration file: none.yaml"),
        (("--goal", "size<=1MB", "--storage", "mysql://x"), "can't be reached"),
        (
            ("--goal", "size<=1MB", "--engine", "ray"),
            "no Ray answers at 127.0.0.2:9: start one with `ray start",
        ),
    ],
)
def test_what_cannot_be_searched_is_one_sentence_and_leaves_nothing(
    encoder_directory, invoke, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.2:9")
    result = invoke("search", encoder_directory, "-o", tmp_path / "o", *words, "--trials", 1, *LIGHT)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


@pytest.mark.slow
def test_a_study_of_another_model_or_processor_is_not_gone_on_with(
    searched, encoder_directory, space_file, monkeypatch
):
    _, _, out = searched
    before = (out / "front.json").read_bytes()
    order = {"minimise": "latency,size", "space": space_file, "threads": 1, "quick": True, "resume": True}
    from graphwright.ir.errors import ConfigError
    from graphwright.tools.search import versions

    with pytest.raises(ConfigError, match="is of another goal"):
        gw.search(encoder_directory, out, "drop<=4", trials=6, shapes="1x4", **order)
    here = versions.detect()
    another = replace(here, cores=99, model="another")
    monkeypatch.setattr(versions, "detect", lambda: another)
    with pytest.raises(ConfigError, match="is of another processor"):
        gw.search(encoder_directory, out, "drop<=5", trials=6, shapes="1x4", **order)
    assert (out / "front.json").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_it_goes_on(encoder_directory, space_file, invoke, tmp_path, stop):
    out = tmp_path / "o"
    out.mkdir()
    (out / ".study.db.partial").write_text("what an earlier kill left")
    line = [sys.executable, "-m", "graphwright.tools.cli", "search", str(encoder_directory), "-o", str(out)]
    words = ["--goal", "drop<=5", "--minimise", "latency,size", "--space", str(space_file), *LIGHT]
    process = subprocess.Popen(
        [*line, *words, "--trials", "50"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" ignores it
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (out / "front.json").exists():
        time.sleep(0.1)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert process.returncode == 130, said
        assert "<h2>Trials</h2>" in (out / "report.html").read_text(encoding="utf-8")
        assert "what was tried is kept" in said
    done = len(
        [one for one in json.loads((out / "front.json").read_text())["trials"] if one["state"] != "running"]
    )
    result = invoke(*line[3:], *words, "--trials", str(done + 1), "--resume", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["trials"]) == done + 1


@pytest.mark.slow
def test_structures_are_foretold_built_and_taught(encoder_directory, tmp_path, monkeypatch):
    for module in (prune_structure, structures):
        monkeypatch.setattr(module, "CHOICES", 1)  # one number of units between none and all
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(["a man plays", "the woman eats a red cat", "the big film is good"] * 20))
    file = tmp_path / "space.yaml"
    rest = ONLY_BITS.replace("structure: [none]", "structure: [none, prune-structure]")
    rest = rest.replace(BITS, "bits: [none]\n")
    file.write_text(rest.replace("recovery: [none]", "recovery: [none, distill]\ndistill.steps: [100]"))
    found = gw.search(
        encoder_directory, tmp_path / "o", "drop<=50", minimise="latency,size", trials=3, shapes="1x4",
        space=file, threads=1, quick=True, calibrate=str(texts),
    )  # fmt: skip
    built = [one for one in found.trials if "prune-structure" in one.pipeline]
    assert built
    assert all("distill{steps=100}" in one.pipeline for one in built)
    assert any(
        one.state == "complete" and one.values["size"] < found.record["baseline"]["size"] for one in built
    )
