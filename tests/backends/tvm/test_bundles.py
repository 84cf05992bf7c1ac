"""Bundles of compiled functions are bundles like any other: whole, checked, light to run."""

import json
import os
import shutil
import signal
import subprocess
import sys

import graphwright as gw
import numpy as np
import pytest
from graphwright.backends.bundles.manifest import read_manifest, sha256, write_manifest
from graphwright.backends.measuring.measure import compare, workloads
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.backends.tvm.run.versions import PINS
from graphwright.ir.errors import BundleError, InputError


@pytest.fixture(scope="module")
def made(artifact, tmp_path_factory):
    return write_compiled(
        tmp_path_factory.mktemp("tvm") / "encoder", artifact, manifest={"seed": 3}, report="# done\n"
    )


@pytest.fixture
def out(made, tmp_path):
    return shutil.copytree(made, tmp_path / "out")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_bundle_is_whole(made):
    assert names(made) == ["manifest.json", "model.so", "model.weights", "report.md", "tokenizer.json"]
    record = json.loads((made / "manifest.json").read_text())
    assert (record["format"], record["backend"], record["seed"], record["threads"]) == (2, "tvm", 3, 2)
    assert record["files"].keys() == {"model.so", "model.weights", "report.md", "tokenizer.json"}
    assert record["symbols"] == {"batch": [1, 64], "length": [1, 12]}
    assert [each["sizes"] for each in record["compiled"]["functions"]] == [
        {"batch": 1, "length": 4}, {"batch": 4, "length": 12},
    ]  # fmt: skip
    assert PINS.items() <= record["versions"].items()


def test_it_answers_arrays_and_texts(made, make):
    bundle = gw.load(made)
    assert repr(bundle).endswith("2 sizes, embedding)")
    assert (bundle.input_names, bundle.output_names) == (("input_ids", "attention_mask"), ("embedding",))
    for feed in (make.feed(1, 4), make.feed(7, 9, 3)):
        np.testing.assert_allclose(
            bundle.run(feed)["embedding"], make.expected(make.weights(), feed), rtol=1e-5, atol=1e-5
        )
    texts = ["a b c", "d", *["e f g h i j k l m n o p q"] * 40]
    rows = bundle(texts)
    assert rows.shape == (42, 16)
    for i in (0, 1, 41):
        np.testing.assert_allclose(rows[i], bundle(texts[i]), atol=1e-5)


def test_two_builds_give_the_same_bytes(make, tmp_path):
    from graphwright.backends.tvm.backend import Tvm

    for folder in ("a", "b"):
        Tvm().build(make.encoder(), threads=2, buckets=[{"batch": 2, "length": 5}]).save(tmp_path / folder)
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_it_is_measured_like_any_other(made, make):
    program = make.encoder(tokenizer={})
    result = compare(
        {"onnx": program, "tvm": made}, workloads(program, ["1x4"]), threads=1, rounds=2, runs=2, seconds=0.1
    )
    assert result.cells["tvm"]["1x4"].ms > 0


LIGHT = """
import sys
for name in ("torch", "onnx", "onnx_ir", "onnxruntime", "transformers", "pydantic", "scipy", "networkx",
             "psutil", "typer", "rich", "yaml", "onnxscript", "safetensors", "ml_dtypes", *sys.argv[2:]):
    sys.modules[name] = None
import numpy as np
import graphwright as gw
bundle = gw.load(sys.argv[1])
ids = np.ones((2, 4), np.int64)
assert bundle.run({"input_ids": ids, "attention_mask": ids})["embedding"].shape == (2, 16)
if "tokenizers" not in sys.argv:
    assert bundle(["a b", "c"]).shape == (2, 16)
print("tvm" in sys.modules)
"""


@pytest.mark.parametrize("blocked", [[], ["tokenizers"]])
def test_running_needs_apache_tvm_and_numpy_only(made, blocked):
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIGHT, str(made), *blocked], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr  # nor is its compiler loaded


OTHER = """
import sys
from importlib import metadata
real = metadata.version
metadata.version = lambda name: "0.1.15" if name == "apache-tvm-ffi" else real(name)
import graphwright as gw
from graphwright.ir.errors import BackendError
try:
    gw.load(sys.argv[1])
except BackendError as error:
    print(error)
"""


def test_another_tvm_is_named_when_the_bundle_is_loaded(made):
    done = subprocess.run(
        [sys.executable, "-P", "-c", OTHER, str(made)], capture_output=True, text=True, check=True
    )
    assert "needs apache-tvm-ffi==0.1.14.post1 and 0.1.15 is installed" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.parametrize("name", ["model.so", "model.weights", "tokenizer.json"])
def test_a_changed_byte_is_noticed(out, name):
    content = bytearray((out / name).read_bytes())
    content[len(content) // 2] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} is not the file that the manifest was made for"):
        gw.load(out)


@pytest.mark.parametrize("name", ["model.so", "model.weights"])
def test_a_truncated_or_missing_file_is_named(out, name):
    content = (out / name).read_bytes()
    (out / name).write_bytes(content[:-7])
    with pytest.raises(BundleError, match=rf"{name} has {len(content) - 7} bytes and the manifest says"):
        gw.load(out, verify=False)
    (out / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        gw.load(out, verify=False)


def edit(out, change):
    record = json.loads((out / "manifest.json").read_text())
    change(record)
    for name, entry in record["files"].items():
        entry.update(sha256=sha256(out / name), bytes=(out / name).stat().st_size)
    write_manifest(out, record)


def test_flipped_bits_in_a_manifest_are_refused(out):
    path = out / "manifest.json"
    content = path.read_bytes()
    draw = np.random.default_rng(0)
    for place in draw.choice(len(content), 500, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(BundleError, match=r"build the bundle again|not the manifest"):
            gw.load(out)


def test_a_library_that_is_none_is_one_sentence(out):
    (out / "model.so").write_bytes(b"not a library")
    edit(out, lambda record: None)
    with pytest.raises(BundleError, match=r"model\.so can't be loaded \(.*\): build the bundle again"):
        gw.load(out)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r["compiled"].update(functions=[]), "damaged .*no compiled function"),
        (lambda r: r["compiled"]["places"].pop(), "damaged .*takes a weight that is not listed"),
        (lambda r: r.pop("compiled"), "damaged .*compiled"),
        (lambda r: r["compiled"]["places"][0].update(offset=1 << 30), "does not hold the weight w0"),
        (lambda r: r["compiled"].update(needs=["avx9000"]), "a processor with avx9000, which this one lacks"),
        (lambda r: r["compiled"].update(arch="vax"), "built for vax and this machine is"),
        (lambda r: r["files"].pop("model.weights"), "'model.weights' is not among its files"),
        (lambda r: r["compiled"]["functions"][0].update(name="gone"), "can't be loaded"),
        (
            lambda r: r["compiled"]["functions"][1]["sizes"].pop("length"),
            "damaged .*run_1 was not compiled for",
        ),
        (lambda r: r["outputs"].append("more"), "damaged .*outputs listed"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused(out, change, sentence):
    edit(out, change)
    with pytest.raises(BundleError, match=sentence):
        gw.load(out)


def test_an_id_out_of_range_does_not_kill_the_process(made, make):
    bundle = gw.load(made)
    for wrong in (40, -1, 1 << 40):
        with pytest.raises(InputError, match=f"{wrong} is out of range"):
            bundle.run({**make.feed(1, 4), "input_ids": np.full((1, 4), wrong)})
    bundle.run(make.feed(1, 4))


def test_saving_copies_the_whole_bundle(made, make, tmp_path):
    gw.load(made).save(tmp_path / "copy")
    feed = make.feed(2, 8)
    np.testing.assert_array_equal(
        gw.load(tmp_path / "copy").run(feed)["embedding"], gw.load(made).run(feed)["embedding"]
    )


def test_a_bundle_can_be_replaced_while_one_of_its_name_runs(out, artifact, make):
    bundle, feed = gw.load(out), make.feed(2, 8)
    before = bundle.run(feed)["embedding"]
    write_compiled(out, artifact, force=True)
    np.testing.assert_array_equal(bundle.run(feed)["embedding"], before)
    with pytest.raises(BundleError, match="exists already"):
        write_compiled(out, artifact)
    assert read_manifest(out).compiled is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes fork")
def test_a_server_may_load_first_and_fork_then(made, make):
    bundle, feed = gw.load(made), make.feed(4, 12)
    expected = bundle.run(feed)["embedding"]
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(bundle.run(feed)["embedding"], expected) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    np.testing.assert_array_equal(bundle.run(feed)["embedding"], expected)


SLOW_WRITER = """
import sys, time
sys.path[:0] = [{here!r}]
from conftest import encoder
from graphwright.backends.tvm.run import artifact
from graphwright.backends.tvm.backend import Tvm
made = Tvm().build(encoder(), threads=1, buckets=[{{"batch": 1, "length": 4}}])
def slow(*_):
    print("writing", flush=True)
    time.sleep(60)
artifact.shutil.copyfile = slow
made.save({out!r})
"""


def test_ctrl_c_in_the_midst_leaves_nothing(tmp_path):
    out, here = tmp_path / "out", os.path.dirname(os.path.dirname(__file__))
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER.format(here=here, out=str(out))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's "&" ignores it
    ) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode != 0
    assert [name for name in names(tmp_path) if "out" in name or "graphwright" in name] == []
