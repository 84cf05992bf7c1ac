"""optimize report: pages and rows of bundles, wherever they lie; nothing of one that has changed."""

import csv
import io
import json
import shutil

import pytest


@pytest.fixture(scope="module")
def bundle(encoder_directory, tmp_path_factory):
    import graphwright as gw

    out = tmp_path_factory.mktemp("bundles") / "first"
    gw.optimize(
        encoder_directory, out, pipeline="to-onnx,fold-constants", shapes="1x4", threads=1, quick=True
    )
    return out


def test_a_page_of_a_bundle_that_was_copied(bundle, invoke, tmp_path):
    copied = tmp_path / "elsewhere"
    shutil.copytree(bundle, copied)
    out = tmp_path / "page.html"
    result = invoke("report", copied, "-o", out)
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert out.read_text("utf-8") == (bundle / "report.html").read_text("utf-8")
    again = invoke("report", copied, "-o", out)
    assert again.exit_code == 1
    assert "--force replaces it" in again.stderr
    assert invoke("report", copied, "-o", out, "--force").exit_code == 0


def test_several_are_compared(bundle, invoke, tmp_path):
    other = tmp_path / "second"
    shutil.copytree(bundle, other)
    text = invoke("report", bundle, other, "--format", "md").stdout
    assert "| first | encoder |" in text
    assert "| second | encoder |" in text
    out = tmp_path / "both.html"
    assert invoke("report", bundle, other, "-o", out).exit_code == 0
    assert "2 bundles compared" in out.read_text("utf-8")


def test_rows_are_the_same_in_json_and_csv(bundle, invoke):
    rows = json.loads(invoke("report", bundle, "--format", "json").stdout)
    assert rows == json.loads(invoke("report", bundle, "--json").stdout)
    measured = json.loads((bundle / "manifest.json").read_text())["measurements"]["contestants"]
    assert {row["contestant"]: row["ms"] for row in rows}["ONNX Runtime"] == (
        measured["ONNX Runtime"]["workloads"]["1x4"]["ms"]
    )
    table = list(csv.DictReader(io.StringIO(invoke("report", bundle, "--format", "csv").stdout)))
    assert [row["ms"] for row in table] == [str(row["ms"]) for row in rows]
    assert table[-1]["weight_bytes"] == str(rows[-1]["weight_bytes"])


def replaced(out, old, new):
    return (out / "manifest.json").read_text().replace(old, new)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda out: (out / "manifest.json").write_text(replaced(out, "1x4", "9x9")), "has changed since"),
        (lambda out: (out / "report.html").write_text("better"), "report.html has 6 bytes"),
        (lambda out: (out / "model.onnx").unlink(), "model.onnx is missing"),
        (lambda out: (out / "manifest.json").unlink(), "has no manifest.json"),
    ],
)  # fmt: skip
def test_what_was_changed_is_refused_in_a_sentence(bundle, invoke, tmp_path, harm, says):
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    harm(changed)
    result = invoke("report", bundle, changed, "--format", "json")
    assert result.exit_code == 1
    assert says in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_formats_are_told_by_the_end_of_a_file(bundle, invoke, tmp_path):
    assert invoke("report", bundle, "-o", tmp_path / "r.csv").exit_code == 0
    assert (tmp_path / "r.csv").read_text().startswith("bundle,model,")
    result = invoke("report", bundle, "-o", tmp_path / "r.jsn")
    assert result.exit_code == 1
    assert "did you mean" in result.stderr
    assert not (tmp_path / "r.jsn").exists()
    assert "is no format" in invoke("report", bundle, "--format", "pdf").stderr


def test_a_bundle_is_named_once(bundle, invoke):
    assert "named twice" in invoke("report", bundle, f"{bundle}/.", "--format", "md").stderr


def test_a_manifest_that_says_nonsense_under_a_true_hash_is_damaged(bundle, invoke, tmp_path):
    from graphwright.backends.bundles.manifest import write_manifest

    odd = tmp_path / "odd"
    shutil.copytree(bundle, odd)
    record = json.loads((odd / "manifest.json").read_text())
    for nonsense in (
        {"steps": [3]},
        {"measurements": {"contestants": {"main": None}}},
        {"weight_bytes": "a"},
    ):
        write_manifest(odd, {**record, **nonsense})
        result = invoke("report", odd, "-o", tmp_path / "r.html")
        assert result.exit_code == 1
        assert "is damaged" in result.stderr
