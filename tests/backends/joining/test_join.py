"""Bundles of variants: the best that a processor has answers, with the bits of a bundle of its own."""

import json
import platform
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import c_runner
import levels
import numpy as np
import pytest
from graphwright.backends import processor
from graphwright.backends.bundles import manifest
from graphwright.backends.bundles.bundle import Route, Variant, write
from graphwright.backends.bundles.manifest import read_manifest, verify_files, write_manifest
from graphwright.backends.joining.join import join
from graphwright.backends.runners.build import LIBRARY, PROGRAM
from graphwright.backends.running.runner import load
from graphwright.backends.target import named
from graphwright.backends.tvm.backend import Tvm
from graphwright.backends.tvm.remote.timing import RemoteBundle
from graphwright.backends.tvm.run.artifact import write_compiled
from graphwright.ir.errors import BundleError, MeasureError

needs_qemu = pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="apt-get install qemu-user")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86_64 are run")
COMPILED = ("x86-64-avx2", "x86-64-bf16")
OLD, NEW = "x86-64-avx2", "x86-64-vnni"


def _joined(folder, builds):
    out = folder / "joined"
    out.mkdir()
    join(out, builds, lambda variants: {"report.md": "\n".join(each["target"] for each in variants)})
    return out


def _size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.name.startswith("model."))


@pytest.fixture(scope="module")
def functions(make, tmp_path_factory):
    """(directory of variants, target -> bundle of its own), compiled."""
    home = tmp_path_factory.mktemp("functions")
    sizes = [{"batch": 2, "length": 8}]
    for target in COMPILED:
        artifact = Tvm().build(make.encoder(), named(target), threads=1, buckets=sizes)
        write_compiled(home / target, artifact, manifest={"target": named(target).to_json()})
    builds = {target: home / target for target in COMPILED}
    return _joined(home, builds), builds


@pytest.fixture(scope="module")
def graphs(make, tmp_path_factory):
    """The same of ONNX graphs: one alike in both, and one over another weight."""
    home = tmp_path_factory.mktemp("graphs")
    plain = make.encoder()
    other = make.encoder({**make.weights(), "dense": make.weights()["dense"] * np.float32(1.5)})
    for target, program in ((OLD, plain), (NEW, other)):
        variants = [Variant("main", program), Variant("plain", plain)]
        routes = [Route("2x8", 2, 8, 0.0, "main"), Route("8x8", 8, 8, 0.0, "plain")]
        write(home / target, variants, routes, manifest={"target": named(target).to_json()}, threads=1)
    builds = {OLD: home / OLD, NEW: home / NEW}
    return _joined(home, builds), builds


@pytest.fixture(params=["functions", "graphs"])
def either(request):
    return request.getfixturevalue(request.param)


def _same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert (found[name].dtype, found[name].shape) == (wanted[name].dtype, wanted[name].shape)
        assert found[name].tobytes() == wanted[name].tobytes()


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [(levels.AVX2, OLD), (levels.AVX512, OLD), (levels.VNNI, NEW), (levels.BF16, NEW)],
)
def test_the_best_that_the_processor_has_answers_with_its_own_bits(graphs, make, monkeypatch, flags, wanted):
    joined, builds = graphs
    levels.pretend(monkeypatch, flags)
    loaded = load(joined)
    assert loaded.variant == wanted
    assert f"for {wanted}" in repr(loaded)
    for batch in (2, 8):
        _same(loaded.run(make.feed(batch, 8)), load(builds[wanted]).run(make.feed(batch, 8)))
    assert (loaded("ab") == load(builds[wanted])("ab")).all()


def test_functions_of_this_processor_answer_with_their_own_bits(functions, make):
    joined, builds = functions
    loaded = load(joined, threads=1)
    assert loaded.variant in builds
    _same(loaded.run(make.feed(2, 5)), load(builds[loaded.variant], threads=1).run(make.feed(2, 5)))


def test_a_processor_that_says_nothing_gets_what_needs_least(graphs, monkeypatch):
    levels.pretend(monkeypatch, "")
    assert load(graphs[0]).variant == OLD


@pytest.mark.parametrize(("may", "wanted"), [(True, "x86-64-amx"), (False, OLD)])
def test_tiles_are_chosen_only_where_the_system_permits_them(graphs, tmp_path, monkeypatch, may, wanted):
    _, builds = graphs
    record = json.loads((builds[NEW] / "manifest.json").read_text())
    shutil.copytree(builds[NEW], tmp_path / "tiles")
    write_manifest(tmp_path / "tiles", {**record, "target": named("x86-64-amx").to_json()})
    joined = _joined(tmp_path, {OLD: builds[OLD], "x86-64-amx": tmp_path / "tiles"})
    levels.pretend(monkeypatch, f"{levels.BF16} amx_tile amx_int8 amx_bf16")
    monkeypatch.setattr(processor, "permitted", lambda: may)
    assert load(joined).variant == wanted


def test_none_that_fits_is_one_sentence(either, monkeypatch):
    joined, builds = either
    levels.pretend(monkeypatch, "fpu sse4_2 avx")
    with pytest.raises(BundleError) as caught:
        load(joined)
    told = str(caught.value)
    assert f"no variant in {joined} runs on this processor, x86_64 with avx" in told
    assert all(f"{target} needs x86_64 with" in told for target in builds)
    assert "avx2" in told
    assert "\n" not in told
    assert read_manifest(joined).variant is None  # and it can still be read
    levels.pretend(monkeypatch, "asimd", "aarch64")
    with pytest.raises(BundleError, match=r"this processor, aarch64 with none of these: "):
        load(joined)


def test_what_is_equal_is_stored_once(either):
    joined, builds = either
    verify_files(joined, read_manifest(joined))
    assert _size(joined) < sum(_size(path) for path in builds.values())
    record = read_manifest(joined).record
    assert all(each["weights"]["shared"] > 0 for each in record["variants"])


def test_equal_graphs_are_one_file_and_what_needs_least_is_the_first(graphs):
    joined, _ = graphs
    files = sorted(path.name for path in joined.iterdir() if path.suffix == ".onnx")
    assert files == ["model.onnx", f"model.{NEW}.onnx"]


def test_the_same_builds_give_the_same_bytes(either, tmp_path):
    joined, builds = either
    again = _joined(tmp_path, dict(reversed(builds.items())))
    for path in joined.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_a_change_to_any_file_is_found_by_both_readers(either, runner, tmp_path):
    joined, _ = either
    library = c_runner.Library(runner / LIBRARY)
    for name in read_manifest(joined).files:
        shutil.copytree(joined, tmp_path / "spoilt", dirs_exist_ok=True)
        content = bytearray((tmp_path / "spoilt" / name).read_bytes())
        content[len(content) // 2] ^= 1
        (tmp_path / "spoilt" / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name} is not the file"):
            load(tmp_path / "spoilt")
        with pytest.raises(c_runner.RunnerError, match=f"{name} is not the file"):
            library.load(tmp_path / "spoilt")


def _lie(record, what):
    variants = record["variants"]
    if what == "none":
        variants.clear()
    elif what == "needs":
        variants[0]["needs"] = []
    elif what == "module":
        variants[-1]["manifest"]["compiled"]["module"] = "../model.so"
    elif what == "text":
        variants[-1]["target"] = 7
    elif what == "nothing":
        del record["variants"]
    else:
        variants[-1]["manifest"]["inputs"] = []


@pytest.mark.parametrize("what", ["none", "needs", "module", "text", "nothing", "inputs"])
def test_both_readers_refuse_a_manifest_that_lies_about_any_variant(functions, runner, tmp_path, what):
    shutil.copytree(functions[0], tmp_path / "lying")
    record = json.loads((tmp_path / "lying" / "manifest.json").read_text())
    _lie(record, what)
    write_manifest(tmp_path / "lying", record)
    with pytest.raises(BundleError, match="is damaged"):
        load(tmp_path / "lying")
    with pytest.raises(c_runner.RunnerError, match="is damaged"):
        c_runner.Library(runner / LIBRARY).load(tmp_path / "lying")


def test_the_c_runner_chooses_alike_and_gives_the_same_bits(either, make, runner, tmp_path):
    joined, _ = either
    feed = make.feed(2, 5)
    (found,) = c_runner.answers(runner / LIBRARY, joined, [feed], tmp_path)
    loaded = load(joined)
    _same(found, loaded.run(feed))
    told = subprocess.run([runner / PROGRAM, joined], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"for {loaded.variant}\n")


@needs_qemu
def test_an_older_processor_runs_its_own_functions_with_the_same_bits(functions, make, tmp_path):
    joined, builds = functions
    feed = make.feed(2, 5)
    code, out = levels.answer_of(tmp_path, joined, feed)
    done = levels.emulated(tmp_path, levels.AVX2, "Haswell", levels.python(code))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == OLD
    with np.load(out) as found:
        _same(dict(found), load(builds[OLD], threads=1).run(feed))


@needs_qemu
def test_on_an_older_processor_the_c_runner_chooses_alike(functions, make, runner, tmp_path, monkeypatch):
    joined, builds = functions
    feed = make.feed(2, 5)
    words = []
    for name, array in feed.items():
        np.save(tmp_path / f"{name}.npy", array)
        words.append(f"{name}={tmp_path / name}.npy")
    line = [runner / PROGRAM, joined]
    told = levels.emulated(tmp_path, levels.AVX2, "Haswell", line)
    assert told.stdout.startswith(f"for {OLD}\n".encode()), told.stderr
    done = levels.emulated(tmp_path, levels.AVX2, "Haswell", [*line, *words, tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    _same({"embedding": np.load(tmp_path / "out" / "embedding.npy")}, load(builds[OLD], threads=1).run(feed))
    refused = levels.emulated(tmp_path, "fpu sse4_2 avx", "Haswell", line)
    levels.pretend(monkeypatch, "fpu sse4_2 avx")
    with pytest.raises(BundleError) as caught:
        load(joined)
    assert refused.stderr.decode().splitlines()[-1] == f"graphwright-run: {caught.value}"


def test_a_lent_device_does_not_say_which_it_would_take(functions):
    with pytest.raises(MeasureError, match="pi does not say which it has: build it for"):
        RemoteBundle(SimpleNamespace(key="pi"), "mine", functions[0], 0)


def test_what_could_not_be_read_again_is_refused(graphs, tmp_path, monkeypatch):
    largest = max((path / "manifest.json").stat().st_size for path in graphs[1].values())
    monkeypatch.setattr(manifest, "MOST_BYTES", largest)
    with pytest.raises(BundleError, match=r"joined/manifest\.json "):
        _joined(tmp_path, graphs[1])


def test_builds_of_different_models_are_not_joined(graphs, make, tmp_path):
    _, builds = graphs
    other = replace(make.encoder(), tokenizer={})
    record = {"target": named(NEW).to_json()}
    write(tmp_path / "other", [Variant("main", other)], manifest=record, threads=1)
    with pytest.raises(BundleError, match=f"for {NEW} has a tokenizer other than that for {OLD}"):
        _joined(tmp_path, {OLD: builds[OLD], NEW: tmp_path / "other"})
