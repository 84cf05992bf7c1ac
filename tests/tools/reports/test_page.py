"""The page of a bundle: what it says is what the manifest says, and nothing in it is taken for HTML."""

import copy
import json
import re

import pytest
from graphwright.backends.measuring.ratios import speedup
from graphwright.tools.reports.energy import NONE, sentences
from graphwright.tools.reports.page import as_script, page, title
from graphwright.tools.reports.plots.steps import path
from graphwright.tools.reports.plots.timings import timings
from graphwright.tools.reports.summary import tiles

HOSTILE = "</script><script>document.title='gone'</script><img src=x onerror=alert(1)>"


def plots(text):
    return json.loads(re.search(r'<script type="application/json" id="plots">(.*?)</script>', text, re.S)[1])


def test_a_bundle_holds_its_page(built, record):
    text = (built[1] / "report.html").read_text("utf-8")
    assert record["files"]["report.html"]["bytes"] == len(text.encode())
    assert "ONNX Runtime" in text
    assert len(text) < 5e6


def test_what_is_measured_is_told_against_the_export(record):
    """Ratios are those of the rounds, whichever contestant came first."""
    found = {(each.workload, each.name): each for each in timings(record)}
    graph = {row["workload"]: row["graph"] for row in record["dispatch"]}["1x8"]
    cells = {name: each["workloads"]["1x8"] for name, each in record["measurements"]["contestants"].items()}
    base, own = cells["ONNX Runtime"], cells[graph]
    loud = [a or b for a, b in zip(base["disturbed"], own["disturbed"], strict=True)]
    expected = speedup(base["rounds_ms"], own["rounds_ms"], loud)
    ours = found["1x8", "bundle"]
    assert (ours.than, ours.ms) == ("ONNX Runtime", cells[graph]["ms"])
    assert (ours.times, ours.interval) == (expected.median, expected.interval)
    assert found["1x8", "ONNX Runtime"].times is None
    assert found["1x8", "PyTorch eager"].times == pytest.approx(
        cells["ONNX Runtime"]["ms"] / cells["PyTorch eager"]["ms"], rel=0.7
    )


def test_manifests_without_rounds_tell_of_their_first_contestant(record):
    old = copy.deepcopy(record)
    for contestant in old["measurements"]["contestants"].values():
        for cell in contestant["workloads"].values():
            del cell["rounds_ms"]
    found = {(each.workload, each.name): each for each in timings(old)}
    graph = {row["workload"]: row["graph"] for row in old["dispatch"]}["1x8"]
    cell = old["measurements"]["contestants"][graph]["workloads"]["1x8"]
    ours = found["1x8", "bundle"]
    assert ours.than == "PyTorch eager"
    assert (ours.times, ours.interval) == (cell["speedup"], tuple(cell["interval95"]))


def test_a_compiled_bundle_has_one_build_for_all_calls_and_names_the_other(record):
    compiled = copy.deepcopy(record) | {"backend": "tvm", "dispatch": [], "graphs": {}}
    graph = {row["workload"]: row["graph"] for row in record["dispatch"]}["1x8"]
    contestants = compiled["measurements"]["contestants"]
    contestants["tvm"] = contestants["main"] = contestants.pop(graph)
    compiled["other"] = {"backend": "onnxruntime", "dispatch": {"1x8": "main", "mixed:4": "main"}}
    found = {(each.workload, each.name): each.ms for each in timings(compiled)}
    assert found["1x8", "bundle"] == contestants["tvm"]["workloads"]["1x8"]["ms"]
    assert ("mixed:4", "onnxruntime build") in found


def test_tiles_say_speed_size_and_quality(record):
    speed, size, quality = tiles(record)
    ours = [each for each in timings(record) if each.name == "bundle"]
    assert speed.unit == "times as fast as ONNX Runtime"
    assert speed.value == " – ".join(f"{times:.2f}" for times in sorted(each.times for each in ours))
    assert size.value == f"{record['weight_bytes'][0] / 1e6:.3g}"
    assert f"{abs(record['quality']['drop']):.2f}" == quality.value
    assert "rows of" in quality.lines[1]


def test_what_a_run_has_no_data_for_is_left_out(record):
    measured = ("quality", "quantization", "measurements", "texts", "profile")
    bare = {key: value for key, value in record.items() if key not in measured}
    text = page(bare)
    assert plots(text) == {}
    for heading in ("Speed", "Where the time goes", "Quantization", "Training", "Your data", "Energy"):
        assert f"<h2>{heading}</h2>" not in text
    assert "<h2>What each pass did</h2>" in text
    assert "<h2>Quantization</h2>" in page(record)


def test_quality_against_size_is_drawn_where_either_moved(record):
    moved = copy.deepcopy(record)
    moved["weight_bytes"], moved["quality"]["drop"] = [90, 100], 0.0
    (shown,) = (plot for plot in [path(moved)] if plot)
    assert [row["what"] for row in shown.spec["data"]["values"]][::2] == ["original", "bundle"]
    moved["weight_bytes"] = [9996, 10000]
    assert path(moved) is None
    moved["quality"]["drop"] = 0.5
    assert path(moved) is not None


def test_the_smallest_manifest_has_a_page():
    assert "<h1>a model</h1>" in page({})


def test_texts_of_strangers_are_texts(record):
    hostile = copy.deepcopy(record)
    hostile["config"]["model"] = f"x{HOSTILE}"
    hostile["steps"][0]["notes"] = [HOSTILE]
    hostile["quantization"][0]["weight"] = HOSTILE
    hostile["quantization"][0]["kernel"] = HOSTILE
    hostile["verdict"] = [HOSTILE]
    text = page(hostile)
    assert "<script>document" not in text
    assert "<img src=x" not in text
    assert HOSTILE in json.dumps(plots(text)).encode().decode("unicode_escape")


def test_no_text_ends_a_script():
    text = as_script({"a": "</script><!--\u2028"})
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!--\u2028"}


@pytest.mark.parametrize(
    ("model", "name"),
    [("/a/b/minilm", "minilm"), ("/a/minilm/model", "minilm/model"), ("m.onnx", "m.onnx"), ("/a/x/", "x")],
)
def test_a_model_is_called_by_the_end_of_its_path(model, name):
    assert title({"config": {"model": model}}) == name


def test_energy_is_told_or_said_to_be_missing(record):
    without = copy.deepcopy(record)
    for contestant in without["measurements"]["contestants"].values():
        for cell in contestant["workloads"].values():
            cell.pop("joules", None)
    assert NONE in page(without)
    for contestant in without["measurements"]["contestants"].values():
        for cell in contestant["workloads"].values():
            cell["joules"] = 0.125
    text = page(without)
    assert NONE not in text
    assert "0.125 J" in text


def test_passes_are_paid_for_by_calls(record):
    drawn = copy.deepcopy(record)
    drawn["steps"][0] |= {"joules": 30.0, "curves": {}}
    drawn["steps"][1] |= {"joules": 60.0, "curves": {"loss": [[1, 2.0], [2, 1.0]]}}
    for name, contestant in drawn["measurements"]["contestants"].items():
        for cell in contestant["workloads"].values():
            cell["joules"] = 0.5 if name == "ONNX Runtime" else 0.2
    first, *calls = sentences(drawn, grid=360.0)
    assert (
        "The passes drew 90 J, 60 J of it where something was trained (0.009 g of CO2 at 360 g a kWh)"
        in first
    )
    assert "A million calls of 1x8 draw 0.0556 kWh (20 g of CO2" in calls[0]
    assert "paid for after 300 calls" in calls[0]
    assert "CO2" not in "".join(sentences(drawn))
    assert sentences(record) == [] or "joules" in json.dumps(record["measurements"])


def test_training_is_drawn_and_lengths_too(record):
    assert "Your data" in page(record)
    trained = copy.deepcopy(record)
    trained["steps"][1]["curves"] = {"loss": [[1, 2.0], [2, 1.5], [3, None]], "held-out loss": [[2, 1.75]]}
    shown = plots(page(trained))
    (curve,) = (
        plot for plot in shown.values() if plot.get("encoding", {}).get("x", {}).get("field") == "step"
    )
    assert [row["loss"] for row in curve["data"]["values"]] == [2.0, 1.5, 1.75]
    trained["steps"][1]["status"] = "rolled back"
    assert "Training of" not in page(trained)
