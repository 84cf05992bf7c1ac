"""The page of a search, from the record that a search writes: every trial, the front, its limits."""

import json
import random

import pytest
from browser import browser, opened
from graphwright.ir.errors import BundleError
from graphwright.tools.reports.plots import front as plots
from graphwright.tools.reports.searched import members, read_front, searched, tiles, trials
from graphwright.tools.search.front import front
from graphwright.tools.search.goal import goal
from graphwright.tools.search.kept import Kept
from graphwright.tools.search.tried import Tried


def recorded(folder, count, text="latency<=5ms@1x128, drop<=1", minimise="latency@1x128,size"):
    """The record that a search of so many trials would write."""
    draw, known = random.Random(0), []
    for number in range(count):
        size = draw.uniform(3, 90)
        state = draw.choice(["complete", "complete", "pruned", "refused"])
        values = {
            "latency@1x128": size * draw.uniform(0.02, 0.4),
            "size": size,
            "drop": draw.uniform(0, 40) / size,
        }
        values = values if state == "complete" else {"size": size}
        pipeline = f"prune-heads{{keep={number % 12 + 1}}},distill{{steps={number}}},to-onnx,fold-constants"
        why = "" if state == "complete" else "hopeless: <b>9 ms</b>"
        known.append(Tried(number, state, {"heads": number % 12}, pipeline, "onnxruntime", values, why, 3.0))
    wanted = goal(text, minimise)
    facts = {
        "model": "/m/minilm",
        "baseline": {"latency@1x128": 30.0, "size": 90.0, "drop": 0.0},
        "notes": [],
    }
    facts |= {"program": "x", "conditions": {"target": "host", "threads": 2}, "space": {}}
    return Kept(folder, wanted, facts).record(known, front(known, wanted))


@pytest.fixture
def found(tmp_path):
    return recorded(tmp_path, 60)


def rows(plot):
    return {row["name"]: row for row in plot.spec["data"]["values"]}


def test_the_front_stands_among_all_that_was_measured(found):
    shown = rows(plots.pareto(found))
    measured = {str(trial["number"]) for trial in found["trials"] if trial["state"] == "complete"}
    assert shown.keys() == measured | {"un-rewritten export"}
    assert {int(name) for name, row in shown.items() if row["what"] == "front"} == set(found["front"])
    for trial in found["trials"]:
        if trial["state"] == "complete" and trial["number"] not in found["front"]:
            kept = trial["values"]["latency@1x128"] <= 5 and trial["values"]["drop"] <= 1
            assert (shown[str(trial["number"])]["what"] == "keeps the goal") == kept


def test_limits_are_drawn_where_they_are(found):
    at = [each["data"]["values"][0] for each in plots.pareto(found).spec["layer"] if "data" in each]
    assert at == [{"x": 5.0}]
    at = [each["data"]["values"][0] for each in plots.quality(found).spec["layer"] if "data" in each]
    assert at == [{"y": 1.0}]


def test_the_best_so_far_never_gets_worse(found):
    values = [row["best"] for row in plots.progress(found).spec["data"]["values"]]
    assert values == sorted(values, reverse=True)
    assert values[-1] == tiles_value(found, "latency@1x128")


def tiles_value(found, key):
    number = found["best"][key]
    return next(trial["values"][key] for trial in found["trials"] if trial["number"] == number)


def test_tables_and_tiles_say_what_the_record_says(found):
    assert [row[0].partition(":")[0] for row in members(found).rows] == [str(n) for n in found["front"]]
    assert len(trials(found).rows) == 60
    best = next(tile for tile in tiles(found) if tile.what == "Best size")
    assert best.value == f"{tiles_value(found, 'size'):.4g}"
    assert "hopeless: &lt;b&gt;9 ms&lt;/b&gt;" in searched(found)


def test_a_goal_that_nothing_keeps_is_said(tmp_path):
    found = recorded(tmp_path, 20, "latency<=0.001ms@1x128")
    text = searched(found)
    assert "Nothing that was tried keeps the goal." in text
    assert f"Trial {found['nearest']} is nearest" in text


def test_one_objective_has_a_page(tmp_path):
    text = searched(recorded(tmp_path, 20, "drop<=2", "latency@1x128"))
    assert "The Pareto front" in text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is damaged"),
        ('{"format": 1}', "is damaged"),
        ('{"format": 9}', "reads up to 1"),
        ("[]", "is damaged"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused(tmp_path, content, says):
    (tmp_path / "front.json").write_text(content)
    with pytest.raises(BundleError, match=says):
        read_front(tmp_path)


def test_a_search_is_reported_by_its_folder(found, invoke, tmp_path):
    (tmp_path / "front.json").write_text(json.dumps(found))
    assert invoke("report", tmp_path, "-o", tmp_path / "r.html").exit_code == 0
    assert (tmp_path / "r.html").read_text("utf-8") == searched(found)
    assert json.loads(invoke("report", tmp_path, "--format", "json").stdout) == found["trials"]
    assert invoke("report", tmp_path, "--format", "csv").stdout.count("\n") == 61
    assert "name it alone" in invoke("report", tmp_path, tmp_path, "--format", "md").stderr


@pytest.mark.parametrize("width", [400, 1600])
def test_500_trials_are_readable_and_small(tmp_path, width):
    path = tmp_path / "search.html"
    path.write_text(searched(recorded(tmp_path, 500)), encoding="utf-8")
    assert path.stat().st_size < 5e6
    with browser() as chromium, opened(chromium, path, width) as (shown, wrong):
        assert wrong == []
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        assert len(shown.query_selector_all(".plot svg")) == 3
        shown.click("summary")
        assert len(shown.query_selector_all("details tbody tr")) == 500
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.hover("#plot0 svg .mark-symbol path >> nth=3")
        assert "pipeline" in shown.wait_for_selector("#vg-tooltip-element.visible").inner_text()
