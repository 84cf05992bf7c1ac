import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.bundles.manifest import read_manifest, write_manifest
from graphwright.backends.running import routed as sessions
from graphwright.backends.running.routed import PADDING_WEIGHT
from graphwright.backends.running.runner import load
from graphwright.ir.errors import BackendError, BundleError, GraphwrightError, InputError
from hypothesis import given
from hypothesis import strategies as st

ROUTES = [
    Route("1x8", 1, 8, 0.0, "default"),
    Route("16x8", 16, 8, 0.0, "wide"),
    Route("mixed:16", 16, 8, 0.5, "packed"),
]


@pytest.fixture
def out(make, tmp_path):
    """A bundle of three graphs that give themselves away by their weights."""
    variants = [
        Variant(name, make.encoder(make.weights(i))) for i, name in enumerate(("default", "wide", "packed"))
    ]
    return write(tmp_path / "out", variants, ROUTES, threads=1, report="report\n")


def test_runs_the_graph_that_was_fastest_for_such_calls(out, make):
    loaded = load(out)
    assert loaded.input_names == ("input_ids", "attention_mask")
    assert loaded.output_names == ("embedding",)
    assert loaded.threads == 1
    for seed, feed in enumerate((make.feed(1, 8), make.feed(12, 10), make.feed(12, 10, padding=5))):
        found = loaded.run(feed)["embedding"]
        np.testing.assert_allclose(found, make.expected(make.weights(seed), feed), atol=1e-5)


def test_the_default_graph_serves_what_nothing_was_measured_for(make, tmp_path):
    out = write(tmp_path / "out", [Variant("a", make.encoder()), Variant("b", make.encoder(make.weights(1)))])
    feed = make.feed()
    np.testing.assert_allclose(
        load(out).run(feed)["embedding"], make.expected(make.weights(), feed), atol=1e-5
    )


@pytest.fixture(scope="module")
def routed(make, tmp_path_factory):
    variants = [Variant(r.graph, make.encoder(make.weights(i))) for i, r in enumerate(ROUTES)]
    return load(write(tmp_path_factory.mktemp("dispatch") / "out", variants, ROUTES))


@given(batch=st.integers(1, 64), length=st.integers(1, 12), padding=st.integers(0, 11))
def test_dispatch_is_the_nearest_in_log_space(routed, make, batch, length, padding):
    padding = min(padding, length - 1)
    files = ("model.onnx", "model.wide.onnx", "model.packed.onnx")
    away = {
        file: np.linalg.norm([
            np.log2(batch / r.batch),
            np.log2(length / r.length),
            PADDING_WEIGHT * (padding / length - r.padding),
        ])
        for file, r in zip(files, ROUTES, strict=True)
    }  # fmt: skip
    found = routed.engine.graph_for(make.feed(batch, length, padding))
    assert away[found] <= min(away.values()) + 1e-9
    assert found == routed.engine.graph_for(make.feed(batch, length, padding, seed=1))


def test_sessions_are_made_when_first_needed_and_once(out, make, monkeypatch):
    opened = []
    real = sessions.open_session
    monkeypatch.setattr(
        sessions, "open_session", lambda path, *a, **k: opened.append(path.name) or real(path, *a, **k)
    )
    loaded = load(out)
    assert opened == []
    threads = [threading.Thread(target=loaded.run, args=(make.feed(16, 8),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == ["model.wide.onnx"]


def test_two_threads_get_their_own_answers(out, make):
    loaded, wrong = load(out), []

    def work(seed):
        for step in range(30):
            feed = make.feed(1, 8, seed=1000 * seed + step)
            found = loaded.run(feed)["embedding"]
            wrong.extend([] if np.allclose(found, make.expected(make.weights(), feed), atol=1e-5) else [seed])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_calls_are_checked(out, make):
    loaded = load(out)
    with pytest.raises(InputError, match="'attention_mask' is missing"):
        loaded.run({"input_ids": make.feed()["input_ids"]})
    with pytest.raises(InputError, match="no input 'token_type_ids'"):
        loaded.run({**make.feed(), "token_type_ids": make.feed()["input_ids"]})
    with pytest.raises(InputError, match="its length is 13 and the model takes at most 12"):
        loaded.run(make.feed(1, 13))


def test_texts_become_rows_in_their_order(make, tmp_path):
    loaded = load(write(tmp_path / "out", [Variant("only", make.encoder())]))
    texts = ["a", "b c d e f", "g h", *["i j k l m n o p q r"] * 40]
    rows = loaded(texts)
    assert rows.shape == (43, 16)
    for i in (0, 1, 2, 42):
        np.testing.assert_allclose(rows[i], loaded(texts[i]), atol=1e-5)
    feed = loaded.encode(["b c d e f"])
    np.testing.assert_allclose(rows[1:2], make.expected(make.weights(), feed), atol=1e-5)


def test_a_model_of_another_task_gives_its_outputs_by_name(make, tmp_path):
    out = write(tmp_path / "out", [Variant("a", make.encoder(task="features"))])
    assert load(out)(["a b", "c"])["embedding"].shape == (2, 16)


def test_without_a_tokenizer_texts_are_refused(make, tmp_path):
    out = write(tmp_path / "out", [Variant("a", make.encoder(tokenizer={}))])
    with pytest.raises(BundleError, match=r"has no tokenizer\.json: pass arrays to run"):
        load(out)(["a"])


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.onnx.data", "model.wide.onnx", "tokenizer.json", "report.md"]
)
def test_a_changed_byte_is_noticed(out, name):
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} is not the file that the manifest was made for"):
        load(out)


@pytest.mark.parametrize("name", ["model.onnx", "model.onnx.data", "tokenizer.json"])
def test_a_truncated_or_missing_file_is_named(out, name):
    content = (out / name).read_bytes()
    (out / name).write_bytes(content[:-7])
    with pytest.raises(BundleError, match=rf"{name} has {len(content) - 7} bytes and the manifest says"):
        load(out, verify=False)
    (out / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        load(out, verify=False)


def test_a_model_file_that_is_not_listed_is_refused_and_notes_are_not(out):
    (out / "NOTES.txt").write_text("mine")
    load(out)
    shutil.copy(out / "model.onnx", out / "model.extra.onnx")
    with pytest.raises(BundleError, match=r"model\.extra\.onnx is not in the manifest"):
        load(out)


def edit(out, change):
    record = json.loads((out / "manifest.json").read_text())
    change(record)
    write_manifest(out, record)


@pytest.mark.parametrize(
    "path", ["../secret.onnx", "/etc/passwd", "a/../../b", "..\\b", "C:b", "./model.onnx"]
)
def test_a_manifest_cannot_lead_out_of_the_bundle(out, path):
    edit(out, lambda record: record["files"].update({path: {"sha256": "", "bytes": 0}}))
    with pytest.raises(BundleError, match="leads out of the bundle"):
        load(out)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda r: r.update(format=4),
            "bundle format 4 and this graphwright reads up to 3: pip install --upgrade",
        ),
        (lambda r: r.pop("format"), "is not the manifest of a graphwright bundle"),
        (lambda r: r.pop("inputs"), "damaged .*inputs"),
        (lambda r: r.update(symbols=[1]), "damaged"),
        (lambda r: r["graphs"].update(default="elsewhere.onnx"), "'elsewhere.onnx' is not among its files"),
        (lambda r: r["dispatch"][0].update(graph="none"), "names no graph of the bundle: 'none'"),
        (lambda r: r["dispatch"][0].update(batch=1e400), "damaged"),
        (lambda r: r["dispatch"][0].update(padding="x"), "'x' where a number from 0 to 1 is due"),
        (lambda r: r["inputs"][0].update(dtype="int65"), "'int65' where the name of a dtype is due"),
        (lambda r: r["inputs"][0].update(dtype=["int64"]), "where the name of a dtype is due"),
        (lambda r: r["inputs"][0].update(shape="ab"), "'ab' where a list is due"),
        (lambda r: r["inputs"][0].update(shape=[-1, "length"]), "-1 where a whole number"),
        (lambda r: r["inputs"][0].update(high="40"), "'40' where a whole number"),
        (lambda r: r["symbols"].update(length=["1", 2]), "'1' where a whole number"),
        (lambda r: r["symbols"].update(length=[3, 2]), "bounds from 3 to 2"),
        (lambda r: r["symbols"].update(length=[1, 2, 3]), "damaged"),
        (lambda r: r["files"].update({"a\0b": {"sha256": "", "bytes": 0}}), "where a text is due"),
        (lambda r: r["files"]["model.onnx"].update(bytes="x"), "'x' where a whole number"),
        (lambda r: r.update(threads=-2), "-2 where a whole number from 1 to 4096"),
        (lambda r: r.update(threads=10**9), "where a whole number from 1 to 4096"),
        (lambda r: r.update(format=True), "is not the manifest"),
        (lambda r: r["info"].update(max_length=-1), "-1 where a whole number"),
        (lambda r: r["info"].update(pad_token_id="x"), "'x' where a whole number"),
        (lambda r: r.update(inputs=None), "None where a list is due"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(out, change, sentence):
    edit(out, change)
    with pytest.raises(BundleError, match=sentence):
        load(out)


def test_one_flipped_bit_anywhere_in_a_manifest_is_refused(out):
    path = out / "manifest.json"
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(BundleError) as caught:
            read_manifest(out)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    path.write_bytes(content)
    read_manifest(out)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text[:-9], "has changed since the bundle was built: copy or build the bundle again"),
        (lambda text: text + b" ", "has changed"),
        (lambda text: text.replace(b"}\n", b', "more": 1}\n'), "has changed"),
        (lambda text: text[:1] + text[text.index(b",") + 1 :], "carries no hash of itself"),
        (lambda text: json.dumps(json.loads(text)).encode(), "carries no hash of itself"),
        (lambda text: b"", "is not valid JSON"),
    ],
)
def test_a_manifest_that_was_changed_is_refused(out, change, sentence):
    path = out / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(BundleError, match=sentence):
        load(out)


def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(BundleError, match="there is no directory"):
        load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match=r"has no manifest\.json: a bundle is what"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_bytes(b"\x00{")
    with pytest.raises(BundleError, match="is not valid JSON"):
        load(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(BundleError, match="is not the manifest"):
        load(tmp_path)


def test_what_is_no_regular_file_is_not_waited_for(out):
    content = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    os.mkfifo(out / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json can't be read: not a regular file"):
        load(out)
    (out / "manifest.json").unlink()
    (out / "manifest.json").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json can't be read: a directory"):
        load(out)
    (out / "manifest.json").rmdir()
    (out / "manifest.json").write_bytes(content)
    edit(out, lambda record: record["files"]["report.md"].update(bytes=0))
    (out / "report.md").unlink()
    os.mkfifo(out / "report.md")
    with pytest.raises(BundleError, match=r"report\.md can't be read: not a regular file"):
        load(out)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\ufeff{}"])
def test_a_manifest_that_json_trips_over_is_refused(out, content):
    (out / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"is not valid JSON|is not the manifest"):
        load(out)


@pytest.mark.parametrize("directory", [None, 3, "a\0b", ["x"], b"\xff\0"])
def test_what_is_no_path_is_refused(directory):
    with pytest.raises(BundleError, match="load takes the directory of a bundle"):
        load(directory)


@pytest.mark.parametrize("threads", [-1, 0, 1.5, "2", True, 1 << 20])
def test_threads_that_no_machine_should_start_are_refused(out, threads):
    with pytest.raises(GraphwrightError, match="four for each CPU that this process may use"):
        load(out, threads=threads)


def test_a_bundle_of_a_larger_machine_runs_on_all_that_there_is(out, monkeypatch):
    edit(out, lambda record: record.update(threads=64))
    monkeypatch.setattr("graphwright.backends.running.runner.usable_threads", lambda: 3)
    assert load(out).threads == 3
    edit(out, lambda record: record.update(threads=2))
    assert load(out).threads == 2


def test_a_bundle_replaced_while_it_is_loaded_is_noticed(out, make):
    loaded = load(out)
    loaded.run(make.feed(1, 8))
    write(out, [Variant("default", make.encoder(make.weights(9)))], force=True)
    loaded.run(make.feed(1, 8))  # the session is there already
    with pytest.raises(BundleError, match="has changed since the bundle was loaded: load it again"):
        loaded.run(make.feed(16, 8))


def test_a_graph_that_cannot_run_is_one_sentence(out, make, monkeypatch):
    edit(out, lambda record: record["symbols"].update(length=[1, 1 << 40]))
    loaded = load(out)
    monkeypatch.setattr(sessions, "check", lambda *_: None)
    with pytest.raises(BackendError, match="ONNX Runtime failed on this call"):
        loaded.run({**make.feed(1, 8), "input_ids": np.full((1, 8), 4000)})


def test_saving_copies_the_whole_bundle(out, make, tmp_path):
    load(out).save(tmp_path / "copy")
    feed = make.feed(16, 8)
    np.testing.assert_array_equal(
        load(tmp_path / "copy").run(feed)["embedding"], load(out).run(feed)["embedding"]
    )
    with pytest.raises(BundleError, match="exists already"):
        load(out).save(tmp_path / "copy")


LIGHT = """
import sys
for name in ("torch", "onnx", "onnx_ir", "transformers", "pydantic", "scipy", "networkx", "psutil", "typer",
             "rich", "yaml", "onnxscript", "safetensors", *sys.argv[2:]):
    sys.modules[name] = None
import numpy as np
from graphwright.backends.running.runner import load
bundle = load(sys.argv[1])
ids = np.ones((2, 4), np.int64)
assert bundle.run({"input_ids": ids, "attention_mask": ids})["embedding"].shape == (2, 16)
if "tokenizers" not in sys.argv:
    assert bundle(["a b", "c"]).shape == (2, 16)
"""


@pytest.mark.parametrize("blocked", [[], ["tokenizers"]])
def test_running_needs_onnxruntime_and_numpy_only(out, blocked):
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIGHT, str(out), *blocked], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("bounded", [False, True])
def test_a_bounded_bundle_keeps_nothing_of_each_size(out, make, monkeypatch, bounded):
    opened = []
    real = sessions.open_session
    monkeypatch.setattr(sessions, "open_session", lambda *a, **k: opened.append(real(*a, **k)) or opened[-1])
    load(out, bounded=bounded).run(make.feed(1, 8))
    assert opened[0].get_session_options().enable_mem_pattern is not bounded
